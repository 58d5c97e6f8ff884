//! RBAC: an index of subjects to rules, compiled from roles and bindings and rebuilt only when one of them changes.
//!
//! Aggregated ClusterRoles are resolved while compiling, so they grant what their selectors say at once, whoever fills
//! their stored rules later. A check allocates nothing when it allows.

use super::aggregate::aggregate;
use super::rule::Rule;
use crate::reader::Reader;
use crate::request::{RequestInfo, UserInfo};
use arc_swap::ArcSwap;
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// The API group.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// What a binding gives a subject.
struct Grant {
    /// None when the role does not exist.
    rules: Option<Arc<[Rule]>>,
    binding: Arc<Binding>,
    /// `User "jane"`.
    subject: String,
}

/// A binding, as messages tell it.
struct Binding {
    /// `ClusterRoleBinding "x"` or `RoleBinding "x/namespace"`.
    text: String,
    role_kind: String,
    role: String,
}

impl Grant {
    fn reason(&self) -> String {
        let Binding { text, role_kind, role } = self.binding.as_ref();
        format!("RBAC: allowed by {text} of {role_kind} {role:?} to {}", self.subject)
    }
}

#[derive(Default)]
struct Grants {
    everywhere: Vec<Grant>,
    by_namespace: HashMap<String, Vec<Grant>>,
}

#[derive(Default)]
struct Index {
    versions: [u64; 4],
    users: HashMap<String, Grants>,
    groups: HashMap<String, Grants>,
}

impl Index {
    /// The grants that hold for `user` in `namespace` (empty: only those that hold everywhere).
    fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Grant> {
        let of_groups = user.groups.iter().filter_map(|group| self.groups.get(group));
        let all = self.users.get(&user.name).into_iter().chain(of_groups);
        let everywhere = all.clone().flat_map(|grants| &grants.everywhere);
        everywhere.chain(all.filter_map(|grants| grants.by_namespace.get(namespace)).flatten())
    }
}

/// The RBAC authorizer.
pub struct Rbac {
    reader: Arc<dyn Reader>,
    resources: [GroupResource; 4],
    index: ArcSwap<Index>,
    building: parking_lot::Mutex<()>,
}

/// A user's rules in a namespace, and what could not be resolved.
pub struct Held {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Texts such as `role.rbac.authorization.k8s.io "x" not found`.
    pub errors: Vec<String>,
}

impl Rbac {
    /// Over the cache.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        let resources = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"]
            .map(|plural| GroupResource::new(GROUP, plural));
        Self { reader, resources, index: ArcSwap::default(), building: parking_lot::Mutex::default() }
    }

    fn versions(&self) -> [u64; 4] {
        // Zero is what an empty index has; one more tells a reader that never changed from it.
        [0, 1, 2, 3].map(|at| self.reader.version(&self.resources[at]).saturating_add(1))
    }

    fn index(&self) -> arc_swap::Guard<Arc<Index>> {
        let index = self.index.load();
        if index.versions == self.versions() {
            return index;
        }
        let _building = self.building.lock();
        // Versions are read before the objects: a change in between leads to one more build, never to a stale index.
        let versions = self.versions();
        if self.index.load().versions != versions {
            self.index.store(Arc::new(self.build(versions)));
        }
        self.index.load()
    }

    fn build(&self, versions: [u64; 4]) -> Index {
        let [cluster_roles, roles, cluster_bindings, bindings] = &self.resources;
        let mut rules: HashMap<(String, String), Arc<[Rule]>> = HashMap::new();
        let all = self.reader.list(cluster_roles, "");
        for role in &all {
            let compiled: Arc<[Rule]> = match aggregate(role, &all) {
                Some(aggregated) => aggregated.into(),
                None => Rule::parse_all(&role["rules"]).into(),
            };
            rules.insert((String::new(), meta::name(role).to_owned()), compiled);
        }
        for role in self.reader.list(roles, "") {
            let key = (meta::namespace(&role).to_owned(), meta::name(&role).to_owned());
            rules.insert(key, Rule::parse_all(&role["rules"]).into());
        }
        let mut index = Index { versions, ..Index::default() };
        for binding in self.reader.list(cluster_bindings, "") {
            add(&mut index, &rules, &binding, "");
        }
        for binding in self.reader.list(bindings, "") {
            add(&mut index, &rules, &binding, meta::namespace(&binding));
        }
        index
    }

    /// Ok when a rule allows `request`.
    ///
    /// # Errors
    /// The reason to add to the 403; mostly empty.
    pub fn allows(&self, user: &UserInfo, request: &RequestInfo) -> Result<(), String> {
        let index = self.index();
        let allows = |grant: &Grant| {
            grant.rules.as_deref().is_some_and(|rules| rules.iter().any(|rule| rule.allows(request)))
        };
        if index.grants(user, &request.namespace).any(allows) {
            return Ok(());
        }
        let errors = unresolved(index.grants(user, &request.namespace));
        match errors.as_slice() {
            [] => Err(String::new()),
            [one] => Err(format!("RBAC: {one}")),
            many => Err(format!("RBAC: [{}]", many.join(", "))),
        }
    }

    /// Why `request` is allowed, for access reviews.
    pub fn reason(&self, user: &UserInfo, request: &RequestInfo) -> String {
        let index = self.index();
        let mut grants = index.grants(user, &request.namespace);
        let allowing = grants.find(|grant| {
            grant.rules.as_deref().is_some_and(|rules| rules.iter().any(|rule| rule.allows(request)))
        });
        allowing.map(Grant::reason).unwrap_or_default()
    }

    /// All rules that `user` holds in `namespace`.
    pub fn held(&self, user: &UserInfo, namespace: &str) -> Held {
        let index = self.index();
        let grants = || index.grants(user, namespace);
        let rules = grants().filter_map(|grant| grant.rules.as_deref()).flatten().cloned().collect();
        Held { rules, errors: unresolved(grants()) }
    }

    /// The rules that a `roleRef` stands for in `namespace`.
    ///
    /// # Errors
    /// 404 when the role does not exist.
    pub fn rules_of(&self, role_ref: &Value, namespace: &str) -> Result<Vec<Rule>, Status> {
        let name = role_ref["name"].as_str().unwrap_or_default();
        let [cluster_roles, roles, ..] = &self.resources;
        let (of, namespace, named) = if role_ref["kind"] == "ClusterRole" {
            (cluster_roles, "", "clusterrole")
        } else {
            (roles, namespace, "role")
        };
        let role = self.reader.get(of, namespace, name);
        let role = role.ok_or_else(|| Status::not_found(&GroupResource::new(GROUP, named), name))?;
        if role["aggregationRule"].is_object()
            && let Some(rules) = aggregate(&role, &self.reader.list(cluster_roles, ""))
        {
            return Ok(rules);
        }
        Ok(Rule::parse_all(&role["rules"]))
    }
}

fn unresolved<'a>(grants: impl Iterator<Item = &'a Grant>) -> Vec<String> {
    let mut errors: Vec<String> = Vec::new();
    for grant in grants.filter(|grant| grant.rules.is_none()) {
        let kind = grant.binding.role_kind.to_lowercase();
        let text = format!("{kind}.{GROUP} {:?} not found", grant.binding.role);
        if !errors.contains(&text) {
            errors.push(text);
        }
    }
    errors
}

/// Adds a binding; `namespace` is empty for a ClusterRoleBinding.
fn add(index: &mut Index, rules: &HashMap<(String, String), Arc<[Rule]>>, binding: &Value, namespace: &str) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (role_kind, role) = (text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"]));
    let role_namespace = if role_kind == "Role" { namespace } else { "" };
    let rules = rules.get(&(role_namespace.to_owned(), role.clone())).cloned();
    let name = meta::name(binding);
    let shown = if namespace.is_empty() {
        format!("ClusterRoleBinding {name:?}")
    } else {
        format!("RoleBinding \"{name}/{namespace}\"")
    };
    let binding_text = Arc::new(Binding { text: shown, role_kind, role });
    for subject in binding["subjects"].as_array().into_iter().flatten() {
        let name = text(&subject["name"]);
        let (grants, told) = match subject["kind"].as_str() {
            Some("User") => (index.users.entry(name.clone()).or_default(), format!("User {name:?}")),
            Some("Group") => (index.groups.entry(name.clone()).or_default(), format!("Group {name:?}")),
            Some("ServiceAccount") => {
                // A RoleBinding may leave the namespace out and means its own.
                let of = subject["namespace"].as_str().filter(|of| !of.is_empty()).unwrap_or(namespace);
                let user = format!("system:serviceaccount:{of}:{name}");
                (index.users.entry(user).or_default(), format!("ServiceAccount \"{name}/{of}\""))
            }
            _ => continue,
        };
        let grant = Grant { rules: rules.clone(), binding: binding_text.clone(), subject: told };
        if namespace.is_empty() {
            grants.everywhere.push(grant);
        } else {
            grants.by_namespace.entry(namespace.to_owned()).or_default().push(grant);
        }
    }
}
