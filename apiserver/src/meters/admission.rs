//! Time and verdicts of admission: of its two steps, of each plugin, of each webhook.

use super::{Histogram, Histograms};
use crate::meters::Register;
use coracle_api::status::Status;
use coracle_daemon::clock::Instant;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::time::Duration;

const BOUNDS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOK_BOUNDS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Codes above are told as this one.
const CODE_MAX: u16 = 600;

/// The step that may change objects.
pub const ADMIT: &str = "admit";
/// The step that may only refuse them.
pub const VALIDATE: &str = "validate";
/// The same of webhooks.
const VALIDATING: &str = "validating";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Step {
    r#type: &'static str,
    operation: &'static str,
    rejected: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Plugin {
    name: &'static str,
    #[prometheus(flatten)]
    step: Step,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Hook {
    name: String,
    #[prometheus(flatten)]
    step: Step,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    #[prometheus(flatten)]
    hook: Hook,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Rejection {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    error_type: &'static str,
    rejection_code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FailOpen {
    name: String,
    r#type: &'static str,
}

/// What a policy did with a write.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Check {
    pub policy: String,
    pub policy_binding: String,
    pub error_type: &'static str,
    pub enforcement_action: &'static str,
}

/// Of what policies take.
const CHECK_BOUNDS: [f64; 5] = [5e-7, 0.001, 0.01, 0.1, 1.0];

/// How a call of a webhook ended.
#[derive(Clone, Copy, Debug)]
pub enum Called {
    /// It allows the write.
    Allowed,
    /// It refuses the write, with a code.
    Refused(u16),
    /// No answer came; whether the write goes on all the same.
    Failed { open: bool },
}

/// Measures admission.
pub struct Meters {
    steps: Histograms<Step>,
    plugins: Histograms<Plugin>,
    hooks: Histograms<Hook>,
    calls: Family<Call, Counter>,
    rejections: Family<Rejection, Counter>,
    open: Family<FailOpen, Counter>,
    checks: Family<Check, Counter>,
    check_times: Histograms<Check>,
}

fn step(r#type: &'static str, operation: &'static str, rejected: bool) -> Step {
    Step { r#type, operation, rejected: if rejected { "true" } else { "false" } }
}

impl Meters {
    /// At a registry.
    pub fn new(registry: &mut Registry) -> Self {
        let mut to = Register::of(registry, "apiserver_admission_");
        let short = || Histogram::seconds(&BOUNDS);
        let long = || Histogram::seconds(&WEBHOOK_BOUNDS);
        Self {
            steps: to.add(
                "step_admission_duration_seconds",
                "Time of a step of admission",
                Family::new_with_constructor(short as fn() -> Histogram),
            ),
            plugins: to.add(
                "controller_admission_duration_seconds",
                "Time of a plugin of admission",
                Family::new_with_constructor(short as fn() -> Histogram),
            ),
            hooks: to.add(
                "webhook_admission_duration_seconds",
                "Time of a webhook of admission",
                Family::new_with_constructor(long as fn() -> Histogram),
            ),
            calls: to.add("webhook_request", "Calls of webhooks of admission", Family::default()),
            rejections: to.add("webhook_rejection_count", "Writes that webhooks refused", Family::default()),
            open: to.add(
                "webhook_fail_open_count",
                "Writes that went on though a webhook failed",
                Family::default(),
            ),
            checks: Family::default(),
            check_times: Family::new_with_constructor(
                (|| Histogram::seconds(&CHECK_BOUNDS)) as fn() -> Histogram,
            ),
        }
        .and_of_policies(registry)
    }

    /// What is told of policies is named otherwise.
    fn and_of_policies(self, registry: &mut Registry) -> Self {
        let mut to = Register::of(registry, "apiserver_validating_admission_policy_");
        Self {
            checks: to.add("check", "What policies had against writes", self.checks),
            check_times: to.add(
                "check_duration_seconds",
                "Time until a policy had something against a write",
                self.check_times,
            ),
            ..self
        }
    }

    /// A policy had something against a write.
    pub fn checked(&self, check: &Check, took: Duration) {
        self.checks.get_or_create(check).inc();
        self.check_times.get_or_create(check).took(took);
    }

    /// Does a whole step.
    pub async fn step<T>(
        &self,
        r#type: &'static str,
        operation: &'static str,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let began = Instant::now();
        let done = work.await;
        self.steps.get_or_create(&step(r#type, operation, done.is_err())).took(began.elapsed());
        done
    }

    /// Does a plugin's part of a step.
    pub async fn plugin<T>(
        &self,
        name: &'static str,
        r#type: &'static str,
        operation: &'static str,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let began = Instant::now();
        let done = work.await;
        let label = Plugin { name, step: step(r#type, operation, done.is_err()) };
        self.plugins.get_or_create(&label).took(began.elapsed());
        done
    }

    /// A call of a webhook.
    pub fn called(
        &self,
        name: &str,
        mutating: bool,
        operation: &'static str,
        took: Duration,
        called: Called,
    ) {
        let r#type = if mutating { ADMIT } else { VALIDATING };
        let (rejected, code, error_type) = match called {
            Called::Allowed => (false, 200, ""),
            Called::Refused(code) => (true, code.min(CODE_MAX), "no_error"),
            Called::Failed { open } => (!open, 503, "calling_webhook_error"),
        };
        let hook = Hook { name: name.to_owned(), step: step(r#type, operation, rejected) };
        self.hooks.get_or_create(&hook).took(took);
        self.calls.get_or_create(&Call { hook, code }).inc();
        if rejected {
            let name = name.to_owned();
            let label = Rejection { name, r#type, operation, error_type, rejection_code: code };
            self.rejections.get_or_create(&label).inc();
        }
        if matches!(called, Called::Failed { open: true }) {
            self.open.get_or_create(&FailOpen { name: name.to_owned(), r#type }).inc();
        }
    }
}
