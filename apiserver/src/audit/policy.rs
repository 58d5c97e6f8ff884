//! `Policy` (audit.k8s.io/v1): what of a request is noted. The first rule that fits decides; where none does, nothing is.

use crate::request::{RequestInfo, UserInfo};
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How much is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Nothing.
    None,
    /// Who, what and when.
    Metadata,
    /// And what was sent.
    Request,
    /// And what was answered.
    RequestResponse,
}

/// When it is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Before anything is done.
    RequestReceived,
    /// When the answer begins, of those that take long.
    ResponseStarted,
    /// At the end.
    ResponseComplete,
    /// When the server failed on it.
    Panic,
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(rename = "metadata")]
    _metadata: serde_json::Value,
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Resources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What a policy says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How much.
    pub level: Level,
    /// When not.
    pub omit_stages: Vec<Stage>,
    /// Whether objects are noted without `managedFields`.
    pub omit_managed_fields: bool,
}

impl Policy {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is no policy.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("failed to read file path {:?}", path.display()))?;
        Self::parse(&text).with_context(|| format!("failed to load audit policy {:?}", path.display()))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// It is no policy.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let policy: Self = serde_yaml_ng::from_str(text).context("failed decoding")?;
        let of = format!("{}, Kind={}", policy.api_version, policy.kind);
        ensure!(of == "audit.k8s.io/v1, Kind=Policy", "unknown group version field {of} in policy");
        ensure!(!policy.rules.is_empty(), "loaded illegal policy with 0 rules");
        for (index, rule) in policy.rules.iter().enumerate() {
            rule.check().with_context(|| format!("rules[{index}]"))?;
        }
        Ok(policy)
    }

    /// What is noted of a request.
    #[must_use]
    pub fn verdict(&self, user: Option<&UserInfo>, request: &RequestInfo) -> Verdict {
        let mut verdict = Verdict {
            level: Level::None,
            omit_stages: self.omit_stages.clone(),
            omit_managed_fields: self.omit_managed_fields,
        };
        if let Some(rule) = self.rules.iter().find(|rule| rule.fits(user, request)) {
            verdict.level = rule.level;
            verdict.omit_stages.extend(&rule.omit_stages);
            verdict.omit_managed_fields = rule.omit_managed_fields.unwrap_or(self.omit_managed_fields);
        }
        verdict
    }
}

impl Rule {
    fn check(&self) -> anyhow::Result<()> {
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if of_resources && !self.non_resource_urls.is_empty() {
            bail!("nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs");
        }
        for url in &self.non_resource_urls {
            ensure!(
                url == "*" || url.starts_with('/'),
                "nonResourceURLs: {url:?}: non-resource URL rules must begin with a '/' character"
            );
            ensure!(
                !url.trim_end_matches('*').contains('*'),
                "nonResourceURLs: {url:?}: non-resource URL wildcards '*' must be the final character of the rule"
            );
        }
        for group in &self.resources {
            let names = !group.resource_names.is_empty();
            ensure!(
                !names || !group.resources.is_empty(),
                "resourceNames: using resourceNames requires at least one resource"
            );
            let of = &group.group;
            ensure!(!of.contains('/'), "resources.group: {of:?}: must be a group without a version");
        }
        Ok(())
    }

    fn fits(&self, user: Option<&UserInfo>, request: &RequestInfo) -> bool {
        let any = |list: &[String], fits: &dyn Fn(&String) -> bool| list.is_empty() || list.iter().any(fits);
        if !any(&self.users, &|name| user.is_some_and(|user| user.name == *name))
            || !any(&self.user_groups, &|group| user.is_some_and(|user| user.groups.contains(group)))
            || !any(&self.verbs, &|verb| *verb == request.verb)
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return request.is_resource
                && any(&self.namespaces, &|namespace| *namespace == request.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|group| group.fits(request)));
        }
        self.non_resource_urls.is_empty()
            || (!request.is_resource
                && self.non_resource_urls.iter().any(|url| path_fits(url, &request.path)))
    }
}

fn path_fits(url: &str, path: &str) -> bool {
    url == "*" || url == path || (url.ends_with('*') && path.starts_with(url.trim_end_matches('*')))
}

impl Resources {
    fn fits(&self, request: &RequestInfo) -> bool {
        let RequestInfo { group, resource, subresource, name, .. } = request;
        if self.group != *group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let named = self.resource_names.is_empty() || self.resource_names.contains(name);
        named
            && self.resources.iter().any(|wanted| match wanted.split_once('/') {
                None => wanted == "*" || (wanted == resource && subresource.is_empty()),
                Some(("*", of)) => of == subresource && !subresource.is_empty(),
                Some((of, "*")) => of == resource,
                Some((of, sub)) => of == resource && sub == subresource,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> RequestInfo {
        let (verb, rest) = line.split_once(' ').expect("verb");
        if rest.starts_with('/') {
            return RequestInfo { verb: verb.to_owned(), path: rest.to_owned(), ..RequestInfo::default() };
        }
        let mut parts = rest.split('|').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        RequestInfo {
            is_resource: true,
            verb: verb.to_owned(),
            group: next(),
            resource: next(),
            subresource: next(),
            namespace: next(),
            name: next(),
            ..RequestInfo::default()
        }
    }

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch]}
- {level: None, nonResourceURLs: ["/healthz*", "/version"]}
- {level: Metadata, resources: [{group: "", resources: [secrets, configmaps, "*/token"]}], omitStages: [ResponseComplete]}
- {level: Request, resources: [{group: apps, resources: ["deployments/*"], resourceNames: [web]}], omitManagedFields: true}
- {level: RequestResponse, userGroups: [admins], namespaces: [prod]}
- {level: Request, namespaces: [""]}
- {level: Metadata, nonResourceURLs: ["*"]}
"#;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = Policy::parse(POLICY).expect("policy");
        let user = |name: &str, group: &str| UserInfo {
            name: name.to_owned(),
            groups: vec![group.to_owned()],
            ..UserInfo::default()
        };
        let cases = [
            ("system:kube-proxy", "", "watch |pods||a|", Level::None),
            ("system:kube-proxy", "", "list |secrets||a|", Level::Metadata),
            ("x", "", "get /healthz/etcd", Level::None),
            ("x", "", "get /versions", Level::Metadata),
            ("x", "", "get |secrets||a|b", Level::Metadata),
            ("x", "", "get |secrets|status|a|b", Level::None),
            ("x", "", "create |serviceaccounts|token|a|b", Level::Metadata),
            ("x", "", "update apps|deployments|scale|a|web", Level::Request),
            ("x", "", "update apps|deployments||a|web", Level::Request),
            ("x", "", "update apps|deployments|scale|a|other", Level::None),
            ("x", "admins", "update apps|deployments||prod|other", Level::RequestResponse),
            ("x", "", "update apps|deployments||prod|other", Level::None),
            ("x", "", "get |nodes|||n", Level::Request),
            ("x", "", "get |pods||a|n", Level::None),
        ];
        for (name, group, line, level) in cases {
            let verdict = policy.verdict(Some(&user(name, group)), &request(line));
            assert_eq!(verdict.level, level, "{line}");
        }
        let secret = policy.verdict(None, &request("get |secrets||a|b"));
        assert_eq!(secret.omit_stages, [Stage::RequestReceived, Stage::ResponseComplete]);
        let scale = policy.verdict(None, &request("update apps|deployments|scale|a|web"));
        assert!(scale.omit_managed_fields && !secret.omit_managed_fields);
    }

    #[test]
    fn a_bad_policy_is_refused() {
        let with = |rules: &str| format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}");
        let cases = [
            with("[]"),
            with("[{level: Everything}]"),
            with("[{level: None, nonResourceURLs: [x]}]"),
            with("[{level: None, nonResourceURLs: ['/a*b']}]"),
            with("[{level: None, namespaces: [a], nonResourceURLs: ['/a']}]"),
            with("[{level: None, resources: [{group: 'apps/v1'}]}]"),
            with("[{level: None, resources: [{resourceNames: [a]}]}]"),
            with("[{level: None, omitStages: [Never]}]"),
            "apiVersion: v1\nkind: Policy\nrules: [{level: None}]".to_owned(),
        ];
        for text in cases {
            assert!(Policy::parse(&text).is_err(), "{text}");
        }
    }
}
