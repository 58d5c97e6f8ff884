//! Which FlowSchema a request belongs to, and which flow of it. Pure.
//!
//! In: the cluster's FlowSchemas and PriorityLevelConfigurations, and who asks for what. Out: the first schema in order of
//! precedence that has a rule for it, its level, and the flow that the request is told apart by.

use crate::request::{RequestInfo, UserInfo};
use coracle_api::meta;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// How flows of a schema are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

/// Who a rule is about.
#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

/// What a rule is about. `*` stands for all.
#[derive(Debug)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    cluster: bool,
    namespaces: Vec<String>,
}

#[derive(Debug)]
struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

/// A FlowSchema.
#[derive(Debug)]
pub struct Schema {
    pub name: String,
    pub uid: String,
    pub level: String,
    precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

/// What a level does when all its seats are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// It has none.
    Exempt,
    Reject,
    Queue {
        queues: usize,
        hand: usize,
        length: usize,
    },
}

/// A PriorityLevelConfiguration.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    pub name: String,
    pub uid: String,
    pub shares: u64,
    /// Percent of its seats that others may use.
    pub lendable: u64,
    /// Percent of its seats that it may borrow on top; without, as many as there are.
    pub borrowing: Option<u64>,
    pub limit: Limit,
}

/// The schemas in order of precedence, and the levels by name.
#[derive(Debug, Default)]
pub struct Configuration {
    pub schemas: Vec<Arc<Schema>>,
    pub levels: HashMap<String, Level>,
}

fn texts(value: &Value) -> Vec<String> {
    meta::strings(value).map(str::to_owned).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == "*" || own == wanted)
}

impl Subject {
    fn read(value: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(match value["kind"].as_str()? {
            "User" => Self::User(text(&value["user"]["name"])),
            "Group" => Self::Group(text(&value["group"]["name"])),
            "ServiceAccount" => Self::ServiceAccount {
                namespace: text(&value["serviceAccount"]["namespace"]),
                name: text(&value["serviceAccount"]["name"]),
            },
            _ => return None,
        })
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == user.name,
            Self::Group(name) => name == "*" || user.groups.contains(name),
            Self::ServiceAccount { namespace, name } => {
                let own = user.name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'));
                own.is_some_and(|(of, own)| of == namespace && (name == "*" || own == name))
            }
        }
    }
}

impl ResourceRule {
    /// This is asked of every request: it copies nothing.
    fn is(&self, info: &RequestInfo) -> bool {
        let named = |own: &String| match (own.as_str(), info.subresource.as_str()) {
            ("*", _) => true,
            (own, "") => own == info.resource,
            (own, subresource) => own.split_once('/') == Some((info.resource.as_str(), subresource)),
        };
        let place = || match info.namespace.as_str() {
            "" => self.cluster,
            namespace => has(&self.namespaces, namespace),
        };
        has(&self.verbs, &info.verb)
            && has(&self.groups, &info.group)
            && self.resources.iter().any(named)
            && place()
    }
}

impl PathRule {
    fn is(&self, info: &RequestInfo) -> bool {
        let path = info.path.as_str();
        let fits = |own: &String| match own.strip_suffix("/*") {
            Some(head) => path.strip_prefix(head).is_some_and(|rest| rest.starts_with('/')),
            None => own == "*" || own == path,
        };
        has(&self.verbs, &info.verb) && self.paths.iter().any(fits)
    }
}

impl Schema {
    fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let rule = |rule: &Value| Rule {
            subjects: list(&rule["subjects"]).iter().filter_map(Subject::read).collect(),
            resources: list(&rule["resourceRules"])
                .iter()
                .map(|rule| ResourceRule {
                    verbs: texts(&rule["verbs"]),
                    groups: texts(&rule["apiGroups"]),
                    resources: texts(&rule["resources"]),
                    cluster: rule["clusterScope"] == true,
                    namespaces: texts(&rule["namespaces"]),
                })
                .collect(),
            paths: list(&rule["nonResourceRules"])
                .iter()
                .map(|rule| PathRule { verbs: texts(&rule["verbs"]), paths: texts(&rule["nonResourceURLs"]) })
                .collect(),
        };
        Self {
            name: meta::name(object).to_owned(),
            uid: meta::uid(object).to_owned(),
            level: spec["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default().to_owned(),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
            distinguisher: match spec["distinguisherMethod"]["type"].as_str() {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: list(&spec["rules"]).iter().map(rule).collect(),
        }
    }

    fn is(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.is(user))
                && if info.is_resource {
                    rule.resources.iter().any(|rule| rule.is(info))
                } else {
                    rule.paths.iter().any(|rule| rule.is(info))
                }
        })
    }

    /// What tells a request's flow from others of the schema.
    pub fn flow<'r>(&self, user: &'r UserInfo, info: &'r RequestInfo) -> &'r str {
        match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => &info.namespace,
        }
    }
}

impl Level {
    fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let (exempt, limited) = (&spec["exempt"], &spec["limited"]);
        let own = if spec["type"] == "Exempt" { exempt } else { limited };
        let count = |value: &Value, default: u64| value.as_u64().unwrap_or(default);
        let size = |value: &Value, default: u64| usize::try_from(count(value, default)).unwrap_or(1);
        let queuing = &limited["limitResponse"]["queuing"];
        let limit = match (spec["type"].as_str(), limited["limitResponse"]["type"].as_str()) {
            (Some("Exempt"), _) => Limit::Exempt,
            (_, Some("Queue")) => Limit::Queue {
                queues: size(&queuing["queues"], 64).max(1),
                hand: size(&queuing["handSize"], 8).max(1),
                length: size(&queuing["queueLengthLimit"], 50),
            },
            _ => Limit::Reject,
        };
        Self {
            name: meta::name(object).to_owned(),
            uid: meta::uid(object).to_owned(),
            shares: count(&own["nominalConcurrencyShares"], if limit == Limit::Exempt { 0 } else { 30 }),
            lendable: count(&own["lendablePercent"], 0).min(100),
            borrowing: own["borrowingLimitPercent"].as_u64(),
            limit,
        }
    }
}

impl Configuration {
    /// From the cluster's objects; schemas whose level does not exist match nothing.
    #[must_use]
    pub fn read(schemas: &[Arc<Value>], levels: &[Arc<Value>]) -> Self {
        let levels: HashMap<String, Level> = levels
            .iter()
            .map(|object| Level::read(object))
            .map(|level| (level.name.clone(), level))
            .collect();
        let read = schemas.iter().map(|object| Arc::new(Schema::read(object)));
        let mut schemas: Vec<Arc<Schema>> =
            read.filter(|schema| levels.contains_key(&schema.level)).collect();
        schemas.sort_by(|a, b| a.precedence.cmp(&b.precedence).then_with(|| a.name.cmp(&b.name)));
        Self { schemas, levels }
    }

    /// The place of a request's schema; that of the last one where none has a rule for it.
    #[must_use]
    pub fn place(&self, user: &UserInfo, info: &RequestInfo) -> Option<usize> {
        let found = self.schemas.iter().position(|schema| schema.is(user, info));
        found.or_else(|| self.schemas.len().checked_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
    }

    fn request(verb: &str, resource: &str, namespace: &str) -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn the_bootstrap_schemas_sort_requests_as_upstream() {
        let objects: Vec<(&str, Value)> = super::super::wanted();
        let of = |plural: &str| -> Vec<Arc<Value>> {
            objects
                .iter()
                .filter(|(own, _)| *own == plural)
                .map(|(_, object)| Arc::new(object.clone()))
                .collect()
        };
        let configuration = Configuration::read(&of("flowschemas"), &of("prioritylevelconfigurations"));
        let path = |path: &str| RequestInfo {
            verb: "get".to_owned(),
            path: path.to_owned(),
            ..RequestInfo::default()
        };
        let pods = |verb: &str, namespace: &str| request(verb, "pods", namespace);
        let rows = [
            ("admin", "system:masters", pods("list", "a"), "exempt", ""),
            ("x", "system:unauthenticated", path("/healthz"), "probes", ""),
            ("system:kube-scheduler", "", request("create", "bindings", "a"), "kube-scheduler", "a"),
            ("system:node:n", "system:nodes", pods("update", "a"), "system-nodes", "system:node:n"),
            (
                "system:serviceaccount:kube-system:x",
                "system:serviceaccounts",
                pods("get", "b"),
                "kube-system-service-accounts",
                "b",
            ),
            (
                "system:serviceaccount:a:x",
                "system:serviceaccounts",
                pods("get", "b"),
                "service-accounts",
                "system:serviceaccount:a:x",
            ),
            ("joe", "", pods("get", "b"), "global-default", "joe"),
        ];
        for (name, group, info, want, flow) in rows {
            let known = if group == "system:unauthenticated" { "" } else { "system:authenticated" };
            let user = user(name, &[group, known]);
            let schema = &configuration.schemas[configuration.place(&user, &info).expect("a schema")];
            assert_eq!((schema.name.as_str(), schema.flow(&user, &info)), (want, flow), "{name}");
        }
    }

    #[test]
    fn rules_name_subresources_apart() {
        let rule = ResourceRule {
            verbs: vec!["get".to_owned()],
            groups: vec!["*".to_owned()],
            resources: vec!["pods".to_owned(), "nodes/status".to_owned()],
            cluster: true,
            namespaces: vec!["a".to_owned()],
        };
        let with = |resource: &str, subresource: &str, namespace: &str| RequestInfo {
            subresource: subresource.to_owned(),
            ..request("get", resource, namespace)
        };
        assert!(rule.is(&with("pods", "", "a")) && !rule.is(&with("pods", "status", "a")));
        assert!(rule.is(&with("nodes", "status", "")) && !rule.is(&with("nodes", "", "")));
        assert!(!rule.is(&with("pods", "", "b")));
    }

    #[test]
    fn a_schema_without_its_level_matches_nothing() {
        let schema = json!({"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "gone"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "*"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true}]}]}});
        let configuration = Configuration::read(&[Arc::new(schema)], &[]);
        assert!(configuration.place(&user("a", &[]), &request("get", "nodes", "")).is_none());
    }
}
