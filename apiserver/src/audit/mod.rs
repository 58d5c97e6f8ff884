//! The audit log (`--audit-policy-file`, `--audit-log-path`): who asked what, when, and how it went.
//!
//!     pipeline ─► begin ─► Record (of this task) ◄── annotate, request, status: whoever has something to tell
//!                              └─► Event, a JSON line at each stage ─► Sink ─► Log
//!
//! Without the flags nothing is made and nothing is kept: those who tell find no record. Invariant: bodies stand in an event
//! only as far as its policy's level goes.

mod event;
mod log;
mod policy;
mod record;
mod sink;

pub use record::{
    Record, annotate, annotate_body, answered, impersonated, options, request, scope, sent, status,
};

use crate::request::{RequestInfo, UserInfo};
use axum::body::Body;
use coracle_api::status::Status;
use coracle_daemon::Tasks;
use event::{Event, Form};
use http::Request;
use log::{Keep, Log};
use policy::{Level, Policy, Stage};
use prometheus_client::registry::Registry;
use sink::{Batches, Mode, Sink};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Flags, named as kube-apiserver's.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct AuditArgs {
    /// Policy that says what is noted of which requests.
    #[arg(long, requires = "audit_log_path")]
    pub audit_policy_file: Option<PathBuf>,
    /// File to which all noted events go; `-` for standard output.
    #[arg(long)]
    pub audit_log_path: Option<PathBuf>,
    /// Megabytes at which the file is put away.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxsize: u64,
    /// Old files that are kept; 0: all.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxbackup: usize,
    /// Days that old files are kept; 0: for ever.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxage: u64,
    /// How events are written.
    #[arg(long, value_enum, default_value_t = Form::Json)]
    pub audit_log_format: Form,
    /// When requests go on: with their events written behind them, once these are written, or only if they are.
    #[arg(long, value_enum, default_value_t = Mode::Blocking)]
    pub audit_log_mode: Mode,
    /// Events that may wait to be written, in batch mode; more are lost.
    #[arg(long, default_value_t = 10_000)]
    pub audit_log_batch_buffer_size: usize,
    /// Events of a batch.
    #[arg(long, default_value_t = 1)]
    pub audit_log_batch_max_size: usize,
    /// How long a batch waits until it is full.
    #[arg(long, default_value = "0s", value_parser = crate::args::duration)]
    pub audit_log_batch_max_wait: Duration,
}

/// Where a client's address is found among a request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Remote(pub IpAddr);

/// Policy and log.
pub struct Audit {
    policy: Policy,
    form: Form,
    sink: Sink,
}

impl Audit {
    /// By the flags; `None` when nothing is to be noted. As in kube-apiserver a path without a policy notes nothing.
    ///
    /// # Errors
    /// The policy cannot be used, or the log not be written.
    pub fn new(
        args: &AuditArgs,
        tasks: &Tasks,
        registry: &mut Registry,
    ) -> anyhow::Result<Option<Arc<Self>>> {
        let (Some(policy), Some(path)) = (&args.audit_policy_file, &args.audit_log_path) else {
            return Ok(None);
        };
        let keep = Keep {
            megabytes: args.audit_log_maxsize,
            backups: args.audit_log_maxbackup,
            days: args.audit_log_maxage,
        };
        let batches = Batches {
            buffer: args.audit_log_batch_buffer_size,
            size: args.audit_log_batch_max_size,
            wait: args.audit_log_batch_max_wait,
        };
        let policy = Policy::from_file(policy)?;
        let sink = Sink::new(Log::open(path, keep)?, args.audit_log_mode, batches, tasks, registry);
        Ok(Some(Arc::new(Self { policy, form: args.audit_log_format, sink })))
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
            self.sink.reject();
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
