//! The audit log (`--audit-policy-file`, `--audit-log-path`, `--audit-webhook-config-file`): who asked what, when, and how it went.
//!
//!     pipeline ─► begin ─► Record (of this task) ◄── annotate, request, status: whoever has something to tell
//!                              └─► Event, at each stage ─► Sink ─► Log, webhook
//!
//! Without the flags nothing is made and nothing is kept: those who tell find no record. Invariant: bodies stand in an event
//! only as far as its policy's level goes.

mod args;
mod event;
mod log;
mod policy;
mod record;
mod sink;

pub use args::AuditArgs;
pub use record::{
    Record, annotate, annotate_body, answered, impersonated, options, request, scope, sent, status,
};

use crate::meters::Register;
use crate::outbound::remote;
use crate::request::{RequestInfo, UserInfo};
use anyhow::Context;
use axum::body::Body;
use coracle_api::status::Status;
use coracle_daemon::Tasks;
use event::Event;
use http::Request;
use log::{Keep, Log};
use policy::{Level, Policy, Stage};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use sink::{Sink, Target};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a try of a webhook may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Where a client's address is found among a request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Remote(pub IpAddr);

/// Policy and targets.
pub struct Audit {
    policy: Policy,
    sinks: Vec<Sink>,
    events: Counter,
    rejected: Counter,
}

impl Audit {
    /// By the flags; `None` when nothing is to be noted. As in kube-apiserver targets without a policy note nothing.
    ///
    /// # Errors
    /// The policy or a target cannot be used.
    pub fn new(
        args: &AuditArgs,
        tasks: &Tasks,
        registry: &mut Registry,
    ) -> anyhow::Result<Option<Arc<Self>>> {
        let mut to = Register::of(registry, "apiserver_audit_");
        let events = to.add("event", "Audit events that were made", Counter::default());
        let failures = to.add("error", "Audit events that could not be kept", Counter::default());
        let rejected = to.add(
            "requests_rejected",
            "Requests that were refused since they could not be noted",
            Counter::default(),
        );
        let Some(policy) = &args.audit_policy_file else { return Ok(None) };
        let policy = Policy::from_file(policy)?;
        let mut sinks = Vec::new();
        if let Some(path) = &args.audit_log_path {
            let keep = Keep {
                megabytes: args.audit_log_maxsize,
                backups: args.audit_log_maxbackup,
                days: args.audit_log_maxage,
            };
            let target = Target::Log(Arc::new(Log::open(path, keep)?), args.audit_log_format);
            sinks.push(Sink::new(args.log()?, target, failures.clone(), tasks));
        }
        if let Some(path) = &args.audit_webhook_config_file {
            let remote =
                remote::Remote::from_kubeconfig(path, LIMIT).context("initializing audit webhook")?;
            let target = Target::Webhook(Arc::new(remote), args.audit_webhook_initial_backoff);
            sinks.push(Sink::new(args.webhook()?, target, failures, tasks));
        }
        Ok((!sinks.is_empty()).then(|| Arc::new(Self { policy, sinks, events, rejected })))
    }

    /// Notes an event; whether what it tells of may go on.
    fn note(&self, event: &Event) -> bool {
        self.events.inc();
        // All of them hear of it.
        self.sinks.iter().filter(|sink| !sink.take(event)).count() == 0
    }

    /// The record of a request whose sender is known; `None` when the policy wants none.
    ///
    /// # Errors
    /// 500 where the request may not be answered without being noted, and cannot be.
    pub fn begin(
        self: &Arc<Self>,
        from: &Sender<'_>,
        user: &UserInfo,
        info: &RequestInfo,
    ) -> Result<Option<Arc<Record>>, Status> {
        let verdict = self.policy.verdict(Some(user), info);
        if verdict.level == Level::None {
            return Ok(None);
        }
        let event = Event::new(verdict.level, from, Some(user), info);
        let record = Record::new(self.clone(), verdict, event);
        if !record.emit(Stage::RequestReceived) {
            self.rejected.inc();
            record.forget();
            return Err(Status::internal("failed to store audit event"));
        }
        Ok(Some(record))
    }

    /// Notes a request whose sender could not be made out.
    pub fn refused(self: &Arc<Self>, from: &Sender<'_>, info: &RequestInfo, status: &Status) {
        let verdict = self.policy.verdict(None, info);
        if verdict.level == Level::None {
            return;
        }
        let mut event = Event::new(verdict.level, from, None, info);
        event.failed(status, verdict.level);
        Record::new(self.clone(), verdict, event).end(Stage::ResponseStarted);
    }
}

/// What a request's head tells of its sender.
pub struct Sender<'a> {
    /// The request's id.
    pub id: &'a str,
    /// Path and query, as sent.
    pub uri: String,
    /// `User-Agent`.
    pub agent: String,
    /// Whom it came from and through.
    pub addresses: Vec<String>,
}

impl<'a> Sender<'a> {
    /// Of a request.
    #[must_use]
    pub fn of(id: &'a str, request: &Request<Body>) -> Self {
        let text = |name: &str| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let forwarded = text("x-forwarded-for").split(',').chain([text("x-real-ip")]);
        let mut addresses: Vec<String> = forwarded
            .filter_map(|address| address.trim().parse::<IpAddr>().ok())
            .map(|address| address.to_string())
            .collect();
        if let Some(Remote(address)) = request.extensions().get::<Remote>() {
            addresses.push(address.to_string());
        }
        // The one that asks may stand in a header already.
        addresses.dedup();
        let uri = request.uri().path_and_query().map_or("/", |uri| uri.as_str()).to_owned();
        Self { id, uri, agent: text("user-agent").to_owned(), addresses }
    }
}
