//! kube-apiserver's flags whose effect there is nothing of here: those that are taken as they say nothing that is not so anyway,
//! and those that are refused, with a sentence, where they ask for something else.

use super::{duration, switch};
use anyhow::{bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

/// What a flag may say.
#[derive(Clone, Copy)]
enum Takes {
    /// Any duration: it bounds or times what is not done here.
    Duration,
    /// Any whole number, likewise.
    Count,
    /// Yes or no.
    Switch,
    /// Any text.
    Text,
    /// These values only; the first is the default.
    Only(&'static [&'static str]),
    /// That it is not set.
    Nothing,
}

use Takes::{Count, Duration, Nothing, Only, Switch, Text};

/// Flag, what it may say, and why.
const FLAGS: &[(&str, Takes, &str)] = &[
    (
        "aggregator-reject-forwarding-redirect",
        Only(&["true"]),
        "an aggregated server's redirect is never followed",
    ),
    ("allow-metric-labels", Nothing, "metrics have labels of few values only"),
    ("allow-metric-labels-manifest", Nothing, "metrics have labels of few values only"),
    ("apiserver-count", Count, "apiservers are counted by their leases"),
    ("audit-log-compress", Nothing, "old audit logs are kept as they are"),
    ("audit-log-version", Only(&["audit.k8s.io/v1"]), "audit events have no other version"),
    ("audit-webhook-version", Only(&["audit.k8s.io/v1"]), "audit events have no other version"),
    (
        "authorization-policy-file",
        Nothing,
        "ABAC is not part of this server; say it in roles, or let a webhook authorize",
    ),
    ("contention-profiling", Switch, "it is Go's runtime that is profiled"),
    ("debug-socket-path", Nothing, "it is Go's runtime that is profiled"),
    ("default-watch-cache-size", Count, "a watch cache is as large as what it holds"),
    ("delete-collection-workers", Count, "a collection is deleted by as many as it takes"),
    ("disabled-metrics", Nothing, "all metrics are told"),
    ("egress-selector-config-file", Nothing, "nodes, pods and webhooks are reached directly"),
    (
        "enable-aggregator-routing",
        Switch,
        "aggregated servers and webhooks are always reached at their endpoints",
    ),
    (
        "emulated-version",
        Only(&["", "1.33", "kube=1.33", "kube:1.33"]),
        "this server is Kubernetes 1.33 and no older",
    ),
    ("emulation-forward-compatible", Nothing, "this server emulates no other version"),
    ("enable-garbage-collector", Only(&["true"]), "finalizers of the garbage collector are always kept"),
    ("enable-logs-handler", Nothing, "no files of the machine are served"),
    ("etcd-count-metric-poll-period", Duration, "objects are counted as they come and go"),
    ("etcd-db-metric-poll-interval", Duration, "the store tells its size itself"),
    ("etcd-healthcheck-timeout", Duration, "health goes by the connection to the store, which is watched"),
    ("etcd-readycheck-timeout", Duration, "readiness goes by the connection to the store, which is watched"),
    ("etcd-servers-overrides", Nothing, "all objects are in one store"),
    ("kubelet-port", Count, "a kubelet's port is the one that its Node tells"),
    ("kubelet-read-only-port", Count, "kubelets are asked over TLS only"),
    ("kubelet-timeout", Duration, "what goes through a kubelet takes as long as its client wants"),
    ("livez-grace-period", Duration, "a server that is still starting lives, however long it takes"),
    ("log-flush-frequency", Duration, "log lines are written at once"),
    ("log-json-info-buffer-size", Text, "log lines are written at once"),
    ("log-json-split-stream", Nothing, "all log lines go to standard error"),
    ("log-text-info-buffer-size", Text, "log lines are written at once"),
    ("log-text-split-stream", Nothing, "all log lines go to standard error"),
    (
        "logging-format",
        Only(&["text"]),
        "lines of JSON are written where the environment says CORACLE_LOG_FORMAT=json",
    ),
    ("max-connection-bytes-per-sec", Only(&["0"]), "streams go as fast as both ends take them"),
    ("peer-advertise-ip", Text, "without UnknownVersionInteroperabilityProxy no apiserver asks another"),
    ("peer-advertise-port", Text, "without UnknownVersionInteroperabilityProxy no apiserver asks another"),
    ("permit-address-sharing", Switch, "an address is always taken again that nobody listens on"),
    ("peer-ca-file", Text, "without UnknownVersionInteroperabilityProxy no apiserver asks another"),
    ("runtime-config-emulation-forward-compatible", Nothing, "this server emulates no other version"),
    ("service-account-lookup", Only(&["true"]), "a token is good only as long as its account lives"),
    (
        "service-account-signing-endpoint",
        Nothing,
        "tokens are signed with --service-account-signing-key-file",
    ),
    ("show-hidden-metrics-for-version", Only(&["", "1.32"]), "no metrics are hidden"),
    ("shutdown-send-retry-after", Nothing, "once the delay is over nothing new is let in"),
    (
        "shutdown-watch-termination-grace-period",
        Only(&["0s", "0"]),
        "watches end between two events when the delay is over",
    ),
    (
        "storage-initialization-timeout",
        Duration,
        "a server is ready once it has read its store, and no sooner",
    ),
    (
        "storage-media-type",
        Only(&["", "application/json"]),
        "objects are stored as JSON, and what a kube-apiserver left as protobuf is read",
    ),
    ("tracing-config-file", Nothing, "requests are not traced"),
    ("vmodule", Text, "it names files of Kubernetes"),
    ("watch-cache", Only(&["true"]), "lists and watches are always served from the cache"),
    ("watch-cache-sizes", Text, "a watch cache is as large as what it holds"),
];

/// Whether a flag may say it.
fn check(takes: Takes, why: &str, text: &str) -> anyhow::Result<()> {
    match takes {
        Duration => drop(duration(text)?),
        Count => ensure!(text.parse::<i64>().is_ok(), "strconv.ParseInt: parsing {text:?}: invalid syntax"),
        Switch => drop(switch(text)?),
        Text => {}
        Only(values) => {
            let same = values.contains(&text)
                || switch(text).is_ok_and(|told| values.contains(&told.to_string().as_str()));
            ensure!(same, "{why}");
        }
        Nothing if text.is_empty() || switch(text).is_ok_and(|told| !told) => {}
        Nothing => bail!("{why}"),
    }
    Ok(())
}

/// The flags themselves; nobody need know what they said.
#[derive(Clone, Debug, Default)]
pub struct Beyond;

impl clap::Args for Beyond {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, (name, takes, why)| {
            let parser = move |text: &str| check(*takes, why, text).map(|()| text.to_owned());
            let arg = Arg::new(*name)
                .long(*name)
                .action(ArgAction::Set)
                .num_args(0..=1)
                .default_missing_value("true")
                .hide(matches!(takes, Nothing))
                .help(format!("No effect here: {why}"))
                .value_parser(parser);
            command.arg(if is_switch(*takes) { arg.require_equals(true) } else { arg })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Whether its value stands behind an equals sign, if anywhere.
fn is_switch(takes: Takes) -> bool {
    matches!(takes, Switch | Only(&["true"]))
}

/// Whether a flag is one of those that are refused where they say anything.
#[cfg(test)]
pub fn refuses(name: &str) -> bool {
    FLAGS.iter().any(|(own, takes, _)| *own == name && matches!(takes, Nothing))
}

/// Whether a flag is one of those that change nothing.
#[cfg(test)]
pub fn has(name: &str) -> bool {
    FLAGS.iter().any(|(own, ..)| *own == name)
}

impl FromArgMatches for Beyond {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}
