//! `/metrics`: requests, their times and what runs now, admission, the store; all under kube-apiserver's names.
//!
//! Only what is served is counted by name, so that nobody can make series by asking for things that do not exist.

use crate::Server;
use crate::meters::access::Access;
use crate::meters::process::Process;
use crate::meters::{Histogram, Histograms, Register};
use crate::reader::Reader;
use crate::request::RequestInfo;
use coracle_api::meta;
use coracle_api::status::GroupResource;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Timed {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    #[prometheus(flatten)]
    timed: Timed,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Long {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Running {
    request_kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Stored {
    resource: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Deprecated {
    group: String,
    version: String,
    resource: String,
    subresource: String,
    removed_release: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Service {
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Hook {
    name: String,
    r#type: &'static str,
}

const BUCKETS: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 5.0, 10.0, 30.0, 60.0];

const HEALTH: &str = "kubernetes_healthcheck";

/// Group, version and resource that are deprecated, and the release that does not serve them any more.
const DEPRECATED: [(&str, &str, &str, &str); 2] =
    [("", "v1", "componentstatuses", ""), ("", "v1", "endpoints", "")];

/// From a thousand bytes, each ten times the one before.
const SIZES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// The server's metrics.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    times: Histograms<Timed>,
    sizes: Histograms<Long>,
    /// The times that are promised: not those of what lasts.
    promised: Histograms<Long>,
    unavailable: Family<Service, Gauge>,
    running: Family<Running, Gauge>,
    long: Family<Long, Gauge>,
    objects: Family<Stored, Gauge>,
    received: Family<Stored, Counter>,
    watched: Family<Stored, Counter>,
    begun: Family<Stored, Counter>,
    seen: Family<Stored, Gauge>,
    process: Process,
    deprecated: Family<Deprecated, Gauge>,
    healthy: Family<Hook, Gauge>,
    started: Gauge<f64, AtomicU64>,
    /// Of who was let in.
    pub access: Access,
}

/// A long-running request, counted until it goes.
pub struct LongRunning(Gauge);

impl Drop for LongRunning {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Tells which program this is.
fn built(registry: &mut Registry) {
    // Labels, and what `/version` calls them.
    const BUILD: [(&str, &str); 9] = [
        ("build_date", "buildDate"),
        ("compiler", "compiler"),
        ("git_commit", "gitCommit"),
        ("git_tree_state", "gitTreeState"),
        ("git_version", "gitVersion"),
        ("go_version", "goVersion"),
        ("major", "major"),
        ("minor", "minor"),
        ("platform", "platform"),
    ];
    let version = super::version();
    let told = BUILD.map(|(label, key)| (label, version[key].as_str().unwrap_or_default().to_owned()));
    let build: Family<Vec<(&str, String)>, Gauge> = Family::default();
    build.get_or_create_owned(&told.to_vec()).set(1);
    registry.register("kubernetes_build_info", "Which program this is", build);
}

fn in_seconds() -> Histogram {
    Histogram::seconds(&BUCKETS)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let times = Family::new_with_constructor(in_seconds as fn() -> Histogram);
        let sizes = Family::new_with_constructor((|| Histogram::bytes(&SIZES)) as fn() -> Histogram);
        let promised = Family::new_with_constructor(in_seconds as fn() -> Histogram);
        let process = Process::new(&mut registry);
        let access = Access::new(&mut registry);
        built(&mut registry);
        let mut to = Register::of(&mut registry, "");
        let own = Self {
            requests: to.add("apiserver_request", "Requests that were answered", Family::default()),
            times: to.add(
                "apiserver_request_duration_seconds",
                "Time to answer; of watches, to begin",
                times,
            ),
            sizes: to.add("apiserver_response_sizes", "Sizes of what reads were answered, in bytes", sizes),
            promised: to.add(
                "apiserver_request_sli_duration_seconds",
                "Time to answer what does not last",
                promised,
            ),
            unavailable: to.add(
                "aggregator_unavailable_apiservice",
                "APIServices that do not answer",
                Family::default(),
            ),
            running: to.add("apiserver_current_inflight_requests", "Requests that run", Family::default()),
            long: to.add("apiserver_longrunning_requests", "Watches and streams that run", Family::default()),
            objects: to.add("apiserver_storage_objects", "Stored objects by resource", Family::default()),
            received: to.add(
                "apiserver_storage_events_received",
                "Changes that the store told of",
                Family::default(),
            ),
            watched: to.add(
                "apiserver_watch_cache_events_received",
                "Changes that a watch cache heard of",
                Family::default(),
            ),
            begun: to.add(
                "apiserver_watch_cache_initializations",
                "How often a watch cache was read anew",
                Family::default(),
            ),
            seen: to.add(
                "apiserver_watch_cache_resource_version",
                "The last change that a watch cache heard of",
                Family::default(),
            ),
            deprecated: to.add(
                "apiserver_requested_deprecated_apis",
                "Deprecated APIs that were used",
                Family::default(),
            ),
            healthy: to.add(HEALTH, "Results of the server's own checks", Family::default()),
            started: to.add("process_start_time_seconds", "When this process started", Gauge::default()),
            process,
            access,
            registry,
        };
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact in a double")]
        own.started.set(coracle_daemon::clock::now().as_second() as f64);
        own
    }
}

/// How Kubernetes calls a verb in metrics. Methods that clients make up are all one.
fn verb(info: &RequestInfo) -> &'static str {
    match info.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "head" => "HEAD",
        "options" => "OPTIONS",
        "connect" => "CONNECT",
        _ => "OTHER",
    }
}

fn scope(info: &RequestInfo) -> &'static str {
    match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
        (false, ..) => "",
        (true, false, _) => "resource",
        (true, true, false) => "namespace",
        (true, true, true) => "cluster",
    }
}

/// What is told of a request: nothing by name of what is not served.
pub fn timed(info: &RequestInfo, dry_run: bool) -> Timed {
    let known = info.kind.is_some();
    let named = |text: &str| if known { text.to_owned() } else { String::new() };
    Timed {
        verb: verb(info),
        dry_run: if dry_run { "All" } else { "" },
        group: named(&info.group),
        version: named(&info.version),
        resource: named(&info.resource),
        subresource: known
            .then(|| info.kind.as_ref().and_then(|kind| kind.subresource(&info.subresource)))
            .flatten()
            .map(|own| own.name.clone())
            .unwrap_or_default(),
        scope: scope(info),
        component: "apiserver",
    }
}

impl Metrics {
    /// For those who count things of their own.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Counts an answered request; of reads also the bytes of the answer.
    pub fn observe(&self, timed: Timed, code: u16, took: Duration, bytes: Option<u64>) {
        let of = (timed.group.as_str(), timed.version.as_str(), timed.resource.as_str());
        if let Some((.., removed_release)) =
            DEPRECATED.iter().find(|(group, version, resource, _)| (*group, *version, *resource) == of)
        {
            let label = Deprecated {
                group: timed.group.clone(),
                version: timed.version.clone(),
                resource: timed.resource.clone(),
                subresource: timed.subresource.clone(),
                removed_release,
            };
            self.deprecated.get_or_create(&label).set(1);
        }
        self.times.get_or_create(&timed).took(took);
        let Timed { verb, group, version, resource, subresource, scope, component, .. } = timed.clone();
        let label = Long { verb, group, version, resource, subresource, scope, component };
        if !matches!(verb, "WATCH" | "CONNECT") {
            self.promised.get_or_create(&label).took(took);
        }
        if let (Some(bytes), "GET" | "LIST") = (bytes, verb) {
            self.sizes.get_or_create(&label).size(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        self.requests.get_or_create(&Request { timed, code }).inc();
    }

    /// Counts a watch or a stream while it runs.
    pub fn long_running(&self, info: &RequestInfo) -> LongRunning {
        let Timed { verb, group, version, resource, subresource, scope, component, .. } = timed(info, false);
        let label = Long { verb, group, version, resource, subresource, scope, component };
        let gauge = self.long.get_or_create_owned(&label);
        gauge.inc();
        LongRunning(gauge)
    }

    /// Forgets what was counted of requests that have ended.
    pub fn reset(&self) {
        self.requests.clear();
        self.times.clear();
        self.sizes.clear();
        self.promised.clear();
    }

    /// All as text.
    #[must_use]
    pub fn text(&self, server: &Server) -> String {
        let [reads, writes] = server.flow.running();
        for (request_kind, running) in [("readOnly", reads), ("mutating", writes)] {
            self.running.get_or_create(&Running { request_kind }).set(running);
        }
        for resource in server.store.resources().values() {
            let stored = Stored { resource: resource.of.to_string() };
            self.objects.get_or_create(&stored).set(i64::try_from(resource.cache.count()).unwrap_or(0));
            let (revision, era) = resource.cache.progress();
            let heard = resource.cache.received();
            for (counts, count) in [(&self.received, heard), (&self.watched, heard), (&self.begun, era)] {
                counts.get_or_create(&stored).inner().store(count, Ordering::Relaxed);
            }
            self.seen.get_or_create(&stored).set(i64::try_from(revision).unwrap_or(i64::MAX));
        }
        let services = GroupResource::new("apiregistration.k8s.io", "apiservices");
        self.unavailable.clear();
        for service in Reader::list(server.store.as_ref(), &services, "") {
            let mut conditions = service["status"]["conditions"].as_array().into_iter().flatten();
            let answers =
                |condition: &Value| condition["type"] == "Available" && condition["status"] == "True";
            let name = meta::name(&service).to_owned();
            let unavailable = !conditions.any(answers);
            self.unavailable.get_or_create(&Service { name }).set(i64::from(unavailable));
        }
        self.process.read();
        for (name, r#type, well) in super::health::results(server) {
            self.healthy.get_or_create(&Hook { name, r#type }).set(i64::from(well));
        }
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        plain_text(&text)
    }

    /// What tells whether the server does what is expected of it.
    #[must_use]
    pub fn objectives(&self, server: &Server) -> String {
        let text = self.text(server);
        let lines = text.lines().filter(|line| line.contains(HEALTH));
        lines.flat_map(|line| [line, "\n"]).collect()
    }
}

/// Counters that were named before all ended so.
const BARE: [&str; 4] = [
    "apiserver_admission_webhook_fail_open_count",
    "apiserver_admission_webhook_rejection_count",
    "authenticated_user_requests",
    "authentication_attempts",
];

/// OpenMetrics as the plain text that came before it, where a counter is named as its samples are.
fn plain_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 64);
    let mut lines = text.lines().peekable();
    let mut bare = None;
    while let Some(line) = lines.next() {
        let about = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        let Some((name, told)) = about.and_then(|about| about.split_once(' ')) else {
            let own = bare.and_then(|name| line.strip_prefix(name)?.strip_prefix("_total"));
            match (own, bare) {
                (Some(rest), Some(name)) => out.extend([name, rest, "\n"]),
                _ if line != "# EOF" => out.extend([line, "\n"]),
                _ => {}
            }
            continue;
        };
        bare = Some(name).filter(|name| BARE.contains(name));
        let counts = told == "counter"
            || lines.peek().is_some_and(|next| next.ends_with(" counter") && next.starts_with("# TYPE "));
        let total = if counts && bare.is_none() { "_total" } else { "" };
        out.extend([&line[..7], name, total, " ", told, "\n"]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::kinds;

    #[test]
    fn the_program_is_told_as_its_version_is() {
        let mut registry = Registry::default();
        built(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        let version = super::super::VERSION;
        assert!(
            text.contains(&format!("git_version=\"{version}\"")) && !text.contains("platform=\"\""),
            "{text}"
        );
    }

    #[test]
    fn requests_are_told_with_kubernetes_labels() {
        let pods = kinds::by_gvk("v1", "Pod").expect("pods").clone();
        let info = |verb: &str, name: &str, subresource: &str| RequestInfo {
            is_resource: true,
            verb: verb.to_owned(),
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            namespace: "a".to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            kind: Some(pods.clone()),
            ..RequestInfo::default()
        };
        let told = |info: &RequestInfo| {
            let own = timed(info, false);
            (own.verb, own.subresource, own.scope)
        };
        assert_eq!(told(&info("create", "", "")), ("POST", String::new(), "namespace"));
        assert_eq!(told(&info("update", "x", "status")), ("PUT", "status".to_owned(), "resource"));
        // What is not served makes no series.
        assert_eq!(told(&info("get", "x", "made-up")), ("GET", String::new(), "resource"));
        let unknown = RequestInfo { kind: None, resource: "made-up".to_owned(), ..info("get", "x", "") };
        assert_eq!(timed(&unknown, false).resource, "");
        let made_up = RequestInfo { verb: "brew7".to_owned(), ..RequestInfo::default() };
        assert_eq!(timed(&made_up, false).verb, "OTHER");
    }

    #[test]
    fn counters_are_called_what_their_samples_are() {
        let told = "# HELP a It.\n# TYPE a counter\na_total 1\n# HELP b Is.\n# TYPE b gauge\nb 2\n# EOF\n";
        let want =
            "# HELP a_total It.\n# TYPE a_total counter\na_total 1\n# HELP b Is.\n# TYPE b gauge\nb 2\n";
        assert_eq!(plain_text(told), want);
        let told = "# HELP authentication_attempts A.\n# TYPE authentication_attempts counter\nauthentication_attempts_total{a=\"b\"} 1\n";
        assert_eq!(plain_text(told), told.replace("_total", ""));
    }
}
