//! The audit log (`--audit-policy-file`, `--audit-log-path`): who asked what, when, and how it went.
//!
//!     pipeline ─► begin ─► Record (of this task) ◄── annotate, request, status: whoever has something to tell
//!                              └─► Event, a JSON line at each stage ─► Log
//!
//! Without the flags nothing is made and nothing is kept: those who tell find no record. Invariant: bodies stand in an event
//! only as far as its policy's level goes.

mod event;
mod log;
mod policy;
mod record;

pub use record::{Record, annotate, answered, impersonated, options, request, scope, sent, status};

use crate::request::{RequestInfo, UserInfo};
use axum::body::Body;
use event::Event;
use http::Request;
use log::{Keep, Log};
use policy::{Level, Policy, Stage};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

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
}

/// Where a client's address is found among a request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Remote(pub IpAddr);

/// Policy and log.
pub struct Audit {
    policy: Policy,
    log: Log,
}

impl Audit {
    /// By the flags; `None` when nothing is to be noted. As in kube-apiserver a path without a policy notes nothing.
    ///
    /// # Errors
    /// The policy cannot be used, or the log not be written.
    pub fn new(args: &AuditArgs) -> anyhow::Result<Option<Arc<Self>>> {
        let (Some(policy), Some(path)) = (&args.audit_policy_file, &args.audit_log_path) else {
            return Ok(None);
        };
        let keep = Keep {
            megabytes: args.audit_log_maxsize,
            backups: args.audit_log_maxbackup,
            days: args.audit_log_maxage,
        };
        Ok(Some(Arc::new(Self { policy: Policy::from_file(policy)?, log: Log::open(path, keep)? })))
    }

    /// The record of a request whose sender is known; `None` when the policy wants none.
    #[must_use]
    pub fn begin(
        self: &Arc<Self>,
        from: &Sender<'_>,
        user: &UserInfo,
        info: &RequestInfo,
    ) -> Option<Arc<Record>> {
        let verdict = self.policy.verdict(Some(user), info);
        if verdict.level == Level::None {
            return None;
        }
        let event = Event::new(verdict.level, from, Some(user), info);
        let record = Record::new(self.clone(), verdict, event);
        record.emit(Stage::RequestReceived);
        Some(record)
    }

    /// Notes a request whose sender could not be made out.
    pub fn refused(self: &Arc<Self>, from: &Sender<'_>, info: &RequestInfo) {
        let verdict = self.policy.verdict(None, info);
        if verdict.level == Level::None {
            return;
        }
        let mut event = Event::new(verdict.level, from, None, info);
        event.refuse(from.tried);
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
    /// How it was tried to be authenticated.
    pub tried: &'static str,
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
        let tried = match text("authorization").split_once(' ') {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("bearer") => "bearer",
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("basic") => "basic",
            _ => "",
        };
        Self { id, uri, agent: text("user-agent").to_owned(), addresses, tried }
    }
}
