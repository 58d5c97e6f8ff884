//! Webhook authorization: what is asked is shown to another server in a SubjectAccessReview, and its answer is remembered.

use crate::outbound::remembered::{Key, Remembered};
use crate::outbound::remote::Remote;
use crate::request::{RequestInfo, UserInfo};
use anyhow::{anyhow, ensure};
use coracle_api::expression::{Checked, Environment, Scope, Value as Cel};
use coracle_api::selector::{FieldSelector, LabelSelector, Operator, Requirement};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;

/// Answers that are remembered.
const REMEMBERED_MAX: usize = 8192;

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and why.
    Allow(String),
    /// No, whatever others say.
    Deny(String),
    /// Others are asked.
    NoOpinion(String),
    /// It cannot tell, and why; `denies`: others are not asked.
    Failed { denies: bool, why: String },
}

/// How a webhook is asked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of the reviews.
    pub version: String,
    /// How long an answer may take.
    pub limit: Duration,
    /// How long answers are remembered.
    pub authorized: Duration,
    /// See `authorized`.
    pub unauthorized: Duration,
    /// Whether no answer means no.
    pub deny_on_failure: bool,
    /// CEL over `request`, the review's spec: the webhook is asked when all are true.
    pub conditions: Vec<String>,
}

/// The other server.
pub struct Webhook {
    remote: Remote,
    settings: Settings,
    conditions: Vec<Checked>,
    remembered: Remembered<Decision>,
}

/// The spec of a SubjectAccessReview.
fn spec(user: &UserInfo, request: &RequestInfo) -> Value {
    let mut spec = Map::new();
    let mut resource = Map::new();
    let set = |to: &mut Map<String, Value>, key: &str, text: &str| {
        if !text.is_empty() {
            to.insert(key.to_owned(), json!(text));
        }
    };
    if request.is_resource {
        let RequestInfo { namespace, verb, group, version, resource: plural, subresource, name, .. } =
            request;
        let fields = [
            ("namespace", namespace),
            ("verb", verb),
            ("group", group),
            ("version", version),
            ("resource", plural),
            ("subresource", subresource),
            ("name", name),
        ];
        for (key, text) in fields {
            set(&mut resource, key, text);
        }
        for (key, raw) in
            [("fieldSelector", &request.field_selector), ("labelSelector", &request.label_selector)]
        {
            if let Some(requirements) = requirements(key, raw) {
                resource.insert(key.to_owned(), json!({"requirements": requirements}));
            }
        }
        spec.insert("resourceAttributes".to_owned(), Value::Object(resource));
    } else {
        set(&mut resource, "path", &request.path);
        set(&mut resource, "verb", &request.verb);
        spec.insert("nonResourceAttributes".to_owned(), Value::Object(resource));
    }
    set(&mut spec, "user", &user.name);
    set(&mut spec, "uid", &user.uid);
    if !user.groups.is_empty() {
        spec.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(spec)
}

/// What a request's selector asks for, as far as it can be read: it only narrows what may be done.
fn requirements(key: &str, raw: &str) -> Option<Vec<Value>> {
    let all: Vec<Value> = if key == "fieldSelector" {
        let selector = FieldSelector::parse_any(raw).ok()?;
        let said = |(field, equals, value): (&str, bool, &str)| json!({"key": field, "operator": if equals { "In" } else { "NotIn" }, "values": [value]});
        selector.terms().map(said).collect()
    } else {
        LabelSelector::parse(raw).ok()?.requirements().iter().filter_map(of_labels).collect()
    };
    (!all.is_empty()).then_some(all)
}

/// A requirement of labels; `None` for one that reviews know no word for.
fn of_labels(requirement: &Requirement) -> Option<Value> {
    let operator = match requirement.operator {
        Operator::In | Operator::Equals => "In",
        Operator::NotIn | Operator::NotEquals => "NotIn",
        Operator::Exists => return Some(json!({"key": requirement.key, "operator": "Exists"})),
        Operator::DoesNotExist => return Some(json!({"key": requirement.key, "operator": "DoesNotExist"})),
        Operator::Gt | Operator::Lt => return None,
    };
    Some(json!({"key": requirement.key, "operator": operator, "values": requirement.values}))
}

/// What a question is known by.
fn key(spec: &Value) -> Key {
    Sha256::digest(spec.to_string()).into()
}

impl Webhook {
    /// At the server of a kubeconfig.
    ///
    /// # Errors
    /// The kubeconfig, the version or a condition cannot be used.
    pub fn new(kubeconfig: &Path, settings: Settings) -> anyhow::Result<Self> {
        let known = ["v1", "v1beta1"].contains(&settings.version.as_str());
        ensure!(known, "unsupported webhook authorizer version {:?}", settings.version);
        let environment = Environment::open();
        let condition = |text: &String| {
            Checked::compile(text, &environment).map_err(|why| anyhow!("matchConditions: {text:?}: {why}"))
        };
        let conditions = settings.conditions.iter().map(condition).collect::<anyhow::Result<_>>()?;
        let remote = Remote::from_kubeconfig(kubeconfig, settings.limit)?;
        Ok(Self { remote, settings, conditions, remembered: Remembered::new(REMEMBERED_MAX) })
    }

    /// What is remembered of such a question; nothing is asked.
    #[must_use]
    pub fn remembered(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        let spec = spec(user, request);
        match self.concerns(&spec) {
            Ok(true) => {
                let known = self.remembered.get(&key(&spec));
                known.unwrap_or_else(|| self.silence("the webhook authorizer has not been asked".to_owned()))
            }
            Ok(false) => Decision::NoOpinion(String::new()),
            Err(why) => self.silence(why),
        }
    }

    /// What no answer means.
    fn silence(&self, why: String) -> Decision {
        Decision::Failed { denies: self.settings.deny_on_failure, why }
    }

    /// What the other server says, now or a while ago.
    pub async fn decide(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        let spec = spec(user, request);
        match self.concerns(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::NoOpinion(String::new()),
            Err(why) => {
                tracing::warn!(why, "a matchCondition of the webhook authorizer fails");
                return self.silence(why);
            }
        }
        let key = key(&spec);
        if let Some(known) = self.remembered.get(&key) {
            return known;
        }
        let mut shown = spec;
        // The older version names groups in the singular.
        if self.settings.version == "v1beta1"
            && let Some(shown) = shown.as_object_mut()
            && let Some(groups) = shown.remove("groups")
        {
            shown.insert("group".to_owned(), groups);
        }
        let question = json!({
            "kind": "SubjectAccessReview",
            "apiVersion": format!("authorization.k8s.io/{}", self.settings.version),
            "metadata": {"creationTimestamp": null},
            "spec": shown,
            "status": {"allowed": false},
        });
        match self.remote.ask(&question).await {
            Ok(answer) => {
                let decision = read(&answer["status"]);
                self.remember(key, &decision);
                decision
            }
            Err(error) => {
                tracing::warn!(%error, "the webhook authorizer cannot be asked");
                self.silence(error.to_string())
            }
        }
    }

    fn concerns(&self, spec: &Value) -> Result<bool, String> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let mut scope = Scope::default();
        scope.set("request", spec);
        let mut fault = None;
        for (program, text) in self.conditions.iter().zip(&self.settings.conditions) {
            match program.run(&scope).0 {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(_) => fault = Some("a matchCondition is no boolean".to_owned()),
                Err(why) => {
                    fault =
                        Some(format!("cel evaluation error: expression '{text}' resulted in error: {why}"));
                }
            }
        }
        fault.map_or(Ok(true), Err)
    }

    fn remember(&self, key: Key, decision: &Decision) {
        let life = match decision {
            Decision::Allow(_) => self.settings.authorized,
            _ => self.settings.unauthorized,
        };
        self.remembered.put(key, decision, life);
    }
}

fn read(status: &Value) -> Decision {
    let reason = status["reason"].as_str().unwrap_or_default().to_owned();
    match (status["allowed"] == true, status["denied"] == true) {
        (true, true) => Decision::Failed {
            denies: true,
            why: "webhook subject access review returned both allow and deny response".to_owned(),
        },
        (true, false) => Decision::Allow(reason),
        (false, true) => Decision::Deny(reason),
        (false, false) => Decision::NoOpinion(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_asks_what_was_asked() {
        let user =
            UserInfo { name: "jane".to_owned(), groups: vec!["devs".to_owned()], ..UserInfo::default() };
        let request = RequestInfo {
            is_resource: true,
            verb: "list".to_owned(),
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            resource: "deployments".to_owned(),
            namespace: "a".to_owned(),
            label_selector: "x=y".to_owned(),
            ..RequestInfo::default()
        };
        let want = json!({"user": "jane", "groups": ["devs"], "resourceAttributes": {"namespace": "a", "verb": "list",
            "group": "apps", "version": "v1", "resource": "deployments", "labelSelector": {"requirements": [{"key": "x", "operator": "In", "values": ["y"]}]}}});
        assert_eq!(spec(&user, &request), want);
        let path =
            RequestInfo { verb: "get".to_owned(), path: "/metrics".to_owned(), ..RequestInfo::default() };
        assert_eq!(spec(&user, &path)["nonResourceAttributes"], json!({"path": "/metrics", "verb": "get"}));
    }

    #[test]
    fn an_answer_about_somebody_of_many_groups_is_remembered_too() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        let config = json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k"}}],
            "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}]});
        std::io::Write::write_all(&mut file, config.to_string().as_bytes()).expect("written");
        let minute = Duration::from_secs(60);
        let settings = Settings {
            version: "v1".to_owned(),
            limit: minute,
            authorized: minute,
            unauthorized: minute,
            deny_on_failure: true,
            conditions: Vec::new(),
        };
        let webhook = Webhook::new(file.path(), settings).expect("webhook");
        let groups = (0..1000).map(|n| format!("directory.example.com/group-{n}")).collect();
        let user = UserInfo { name: "jane".to_owned(), groups, ..UserInfo::default() };
        let request = RequestInfo { verb: "get".to_owned(), path: "/x".to_owned(), ..RequestInfo::default() };
        webhook.remember(key(&spec(&user, &request)), &Decision::Allow("r".to_owned()));
        assert_eq!(webhook.remembered(&user, &request), Decision::Allow("r".to_owned()));
        let other = UserInfo { name: "john".to_owned(), ..user };
        assert!(matches!(webhook.remembered(&other, &request), Decision::Failed { denies: true, .. }));
    }

    #[test]
    fn an_answer_is_yes_no_or_none() {
        assert_eq!(read(&json!({"allowed": true, "reason": "r"})), Decision::Allow("r".to_owned()));
        assert_eq!(read(&json!({"allowed": false, "denied": true})), Decision::Deny(String::new()));
        assert_eq!(read(&json!({"allowed": false})), Decision::NoOpinion(String::new()));
        assert!(matches!(
            read(&json!({"allowed": true, "denied": true})),
            Decision::Failed { denies: true, .. }
        ));
    }
}
