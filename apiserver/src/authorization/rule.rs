//! One RBAC rule: matching a request, covering another rule, and its text in messages.

use crate::request::RequestInfo;
use coracle_api::meta;
use serde_json::{Value, json};
use std::fmt;

/// `rbac.authorization.k8s.io/v1` PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Allowed verbs, or `*`.
    pub verbs: Vec<String>,
    /// API groups, or `*`.
    pub api_groups: Vec<String>,
    /// `plural`, `plural/sub`, `*/sub` or `*`.
    pub resources: Vec<String>,
    /// Names that the rule is limited to; all when empty.
    pub resource_names: Vec<String>,
    /// Paths, `*` at the end for a prefix.
    pub non_resource_urls: Vec<String>,
}

const ALL: &str = "*";

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted)
}

fn has_or_all(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == ALL || item == wanted)
}

fn url_matches(rule: &str, path: &str) -> bool {
    rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

impl Rule {
    /// From its JSON form; absent and null lists are empty.
    #[must_use]
    pub fn parse(rule: &Value) -> Self {
        let list = |key: &str| meta::strings(&rule[key]).map(str::to_owned).collect();
        Self {
            verbs: list("verbs"),
            api_groups: list("apiGroups"),
            resources: list("resources"),
            resource_names: list("resourceNames"),
            non_resource_urls: list("nonResourceURLs"),
        }
    }

    /// The rules of a role.
    #[must_use]
    pub fn parse_all(rules: &Value) -> Vec<Self> {
        rules.as_array().into_iter().flatten().map(Self::parse).collect()
    }

    /// Its JSON form, empty lists left out.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut out = json!({"verbs": self.verbs});
        for (key, list) in self.lists() {
            if !list.is_empty() {
                out[key] = json!(list);
            }
        }
        out
    }

    fn lists(&self) -> [(&'static str, &Vec<String>); 4] {
        [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("nonResourceURLs", &self.non_resource_urls),
            ("resourceNames", &self.resource_names),
        ]
    }

    /// Whether it allows `request`. Allocates nothing.
    #[must_use]
    pub fn allows(&self, request: &RequestInfo) -> bool {
        if !has_or_all(&self.verbs, &request.verb) {
            return false;
        }
        if !request.is_resource {
            return self.non_resource_urls.iter().any(|url| url_matches(url, &request.path));
        }
        has_or_all(&self.api_groups, &request.group)
            && self.resources.iter().any(|rule| names_resource(rule, &request.resource, &request.subresource))
            && (self.resource_names.is_empty() || has(&self.resource_names, &request.name))
    }

    /// Whether it allows all that the simple rule `part` (see [`Rule::parts`]) does.
    fn covers_part(&self, part: &Self) -> bool {
        let all =
            |own: &[String], wanted: &[String]| has(own, ALL) || wanted.iter().all(|item| has(own, item));
        let resource = |wanted: &String| {
            let (resource, sub) = wanted.split_once('/').unwrap_or((wanted, ""));
            self.resources.iter().any(|rule| names_resource(rule, resource, sub))
        };
        let names = if part.resource_names.is_empty() {
            self.resource_names.is_empty()
        } else {
            self.resource_names.is_empty()
                || part.resource_names.iter().all(|name| has(&self.resource_names, name))
        };
        let url = |wanted: &String| self.non_resource_urls.iter().any(|rule| url_matches(rule, wanted));
        all(&self.verbs, &part.verbs)
            && all(&self.api_groups, &part.api_groups)
            && part.resources.iter().all(resource)
            && names
            && part.non_resource_urls.iter().all(url)
    }

    /// The rule as simple rules of one group, one resource, one verb and at most one name.
    fn parts(&self) -> Vec<Self> {
        let one = |item: &String| vec![item.clone()];
        let mut parts = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let part = Self {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        ..Self::default()
                    };
                    if self.resource_names.is_empty() {
                        parts.push(part);
                    } else {
                        parts.extend(
                            self.resource_names
                                .iter()
                                .map(|name| Self { resource_names: one(name), ..part.clone() }),
                        );
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            for verb in &self.verbs {
                parts.push(Self { verbs: one(verb), non_resource_urls: one(url), ..Self::default() });
            }
        }
        parts
    }

    fn same_but_verbs(&self, other: &Self) -> bool {
        self.lists() == other.lists()
    }
}

/// Whether `rule` (`*`, `plural`, `plural/sub`, `*/sub`) means this resource and subresource.
fn names_resource(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    rule.split_once('/').is_some_and(|(rule, sub)| sub == subresource && (rule == ALL || rule == resource))
}

/// What of `wanted` no rule of `held` covers, verbs of one thing joined; empty when all is held.
#[must_use]
pub fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let mut missing: Vec<Rule> = Vec::new();
    for part in wanted.iter().flat_map(Rule::parts) {
        if held.iter().any(|rule| rule.covers_part(&part)) {
            continue;
        }
        match missing.iter_mut().find(|seen| seen.same_but_verbs(&part)) {
            Some(seen) => {
                for verb in part.verbs {
                    if !has(&seen.verbs, &verb) {
                        seen.verbs.push(verb);
                    }
                }
            }
            None => missing.push(part),
        }
    }
    missing
}

/// As Kubernetes shows a rule: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let parts: Vec<String> = lists
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name}:{}", quoted(list)))
            .collect();
        write!(f, "{{{}}}", parts.join(", "))
    }
}

/// Go's `%q` of a list of strings.
#[must_use]
pub fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| coracle_api::status::go_quoted(item)).collect();
    format!("[{}]", items.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(value: impl std::borrow::Borrow<Value>) -> Rule {
        Rule::parse(value.borrow())
    }

    #[test]
    fn a_rule_allows_what_it_names_and_nothing_else() {
        let pods =
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "*/scale", "nodes/proxy"]});
        let named =
            json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"], "resourceNames": ["web"]});
        let cases = [
            (&pods, "get", "", "pods", "", "x", true),
            (&pods, "list", "", "pods", "", "", false),
            (&pods, "get", "apps", "pods", "", "x", false),
            (&pods, "get", "", "pods", "log", "x", false),
            (&pods, "get", "", "replicationcontrollers", "scale", "x", true),
            (&pods, "get", "", "nodes", "proxy", "x", true),
            (&pods, "get", "", "nodes", "", "x", false),
            (&named, "delete", "apps", "deployments", "status", "web", true),
            (&named, "delete", "apps", "deployments", "", "other", false),
            (&named, "list", "apps", "deployments", "", "", false),
        ];
        for (value, verb, group, resource, subresource, name, allowed) in cases {
            let request = RequestInfo {
                is_resource: true,
                verb: verb.into(),
                group: group.into(),
                resource: resource.into(),
                subresource: subresource.into(),
                name: name.into(),
                ..RequestInfo::default()
            };
            assert_eq!(
                rule(value).allows(&request),
                allowed,
                "{verb} {resource}/{subresource} {name} by {value}"
            );
        }
    }

    #[test]
    fn paths_match_exactly_or_by_prefix() {
        let paths = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}));
        for (path, verb, allowed) in [
            ("/healthz", "get", true),
            ("/healthz/x", "get", false),
            ("/api/v1", "get", true),
            ("/healthz", "post", false),
        ] {
            let request = RequestInfo {
                path: path.into(),
                verb: verb.into(),
                is_resource: false,
                ..RequestInfo::default()
            };
            assert_eq!(paths.allows(&request), allowed, "{verb} {path}");
        }
    }

    #[test]
    fn what_is_missing_is_told_with_its_verbs_joined() {
        let held = [rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["*"]}))];
        let wanted = [
            rule(json!({"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods"]})),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/x"]})),
        ];
        let texts: Vec<String> = missing(&held, &wanted).iter().map(Rule::to_string).collect();
        assert_eq!(
            texts,
            [
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#,
                r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#
            ]
        );
        let all = [
            rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})),
            rule(json!({"verbs": ["*"], "nonResourceURLs": ["*"]})),
        ];
        assert!(missing(&all, &wanted).is_empty());
    }
}
