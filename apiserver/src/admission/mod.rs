//! Admission in Kubernetes' order, one file a plugin.
//!
//! In: a write that is authenticated and authorized, its object decoded and defaulted. Out: the object changed
//! ([`Admission::mutate`]), or a Status that refuses it ([`Admission::validate`], right before the store).
//! Plugins read through the caches; the few questions that must be fresh go to the store.
//!
//! Invariant: a dry run changes nothing, quota usage included.

mod certificates;
mod conditions;
mod configuration;
mod defaults;
mod limit_range;
mod namespace_lifecycle;
mod node_restriction;
mod optional;
mod plugins;
mod pod_security;
mod policy;
mod priority;
mod quota;
mod resources;
mod runtime_class;
mod select;
mod service_account;
mod storage;
#[cfg(test)]
mod tests;
mod webhook;

pub use plugins::{AdmissionArgs, Plugins};
pub use webhook::{ANSWER_MAX, Dialler, of_kind};

use crate::authorization::Authorization;
use crate::meters::admission::{ADMIT, Meters, VALIDATE};
use crate::reader::{Objects, Reader};
use crate::request::{RequestInfo, UserInfo};
use coracle_api::meta;
use coracle_api::status::{GroupResource, Status};
use coracle_daemon::Tasks;
use optional::{
    always_pull_images, anti_affinity, event_rate, extended_resources, external_ips, namespaces,
    node_selector, owner_references, tolerations,
};
use plugins::Plugin;
use serde_json::Value;
use std::sync::Arc;

/// What a plugin sees of a write.
pub struct Attributes<'a> {
    /// What is asked.
    pub request: &'a RequestInfo,
    /// By whom.
    pub user: &'a UserInfo,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: &'static str,
    /// The stored object, on update and delete.
    pub old: Option<&'a Value>,
    /// Whether nothing will be written.
    pub dry_run: bool,
    /// CreateOptions and the like, as webhooks are shown them.
    pub options: &'a Value,
}

const CREATE: &str = "CREATE";
const UPDATE: &str = "UPDATE";
const DELETE: &str = "DELETE";

impl Attributes<'_> {
    /// The name of what is written: what is made may name itself, what goes with others is not named.
    fn name<'a>(&'a self, object: &'a Value) -> &'a str {
        if self.request.name.is_empty() { meta::name(object) } else { &self.request.name }
    }

    /// Whether it is about this core resource itself, or its `/subresource`.
    fn is(&self, resource: &str) -> bool {
        self.is_of("", resource)
    }

    /// Whether it is about this resource of `group` itself, or its `/subresource`.
    fn is_of(&self, group: &str, resource: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        self.request.group == group
            && self.request.resource == resource
            && self.request.subresource == subresource
    }

    /// Whether something is made or changed.
    fn changes(&self) -> bool {
        [CREATE, UPDATE].contains(&self.operation)
    }

    /// Whether one of this core resource is.
    fn writes(&self, resource: &str) -> bool {
        self.changes() && self.is(resource)
    }

    fn creates(&self, resource: &str) -> bool {
        self.operation == CREATE && self.is(resource)
    }

    /// Whether a pod is to get other resources.
    fn resizes(&self) -> bool {
        self.operation == UPDATE && self.is("pods/resize")
    }

    fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.request.group, &self.request.resource)
    }

    /// 403 for `object`, or for the request's object when there is none.
    fn forbidden(&self, object: &Value, cause: &str) -> Status {
        let candidates = [meta::name(object), meta::field(object, "generateName"), &self.request.name];
        let name = candidates.into_iter().find(|name| !name.is_empty()).unwrap_or("Unknown");
        Status::forbidden(&self.group_resource(), name, cause)
    }
}

/// What plugins ask.
struct Context {
    reader: Arc<dyn Reader>,
    objects: Arc<dyn Objects>,
    authorization: Arc<Authorization>,
    meters: Meters,
    plugins: Plugins,
}

impl Context {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.reader.get(&GroupResource::new(group, plural), namespace, name)
    }

    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Value>> {
        self.reader.list(&GroupResource::new(group, plural), namespace)
    }

    /// From the cache, or from the store when the cache has not seen it (yet).
    async fn find(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Value>>, Status> {
        let of = GroupResource::new(group, plural);
        match self.reader.get(&of, namespace, name) {
            Some(object) => Ok(Some(object)),
            None => Ok(self.objects.get_fresh(&of, namespace, name).await?.map(Arc::new)),
        }
    }
}

/// The chain of plugins.
pub struct Admission {
    context: Context,
    reservations: quota::Reservations,
    webhooks: webhook::Webhooks,
    conditions: conditions::Conditions,
}

impl Admission {
    /// From the caches.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>, objects: Arc<dyn Objects>, plugins: Plugins) -> Self {
        let authorization = Arc::new(Authorization::new(reader.clone()));
        let meters = Meters::new(&mut prometheus_client::registry::Registry::default());
        Self::with_authorization(reader, objects, authorization, Tasks::new(), meters, plugins)
    }

    /// The same, sharing the server's authorization and its compiled rules.
    #[must_use]
    pub fn with_authorization(
        reader: Arc<dyn Reader>,
        objects: Arc<dyn Objects>,
        authorization: Arc<Authorization>,
        tasks: Tasks,
        meters: Meters,
        plugins: Plugins,
    ) -> Self {
        Self {
            webhooks: webhook::Webhooks::new(tasks, &plugins),
            context: Context { reader, objects, authorization, meters, plugins },
            reservations: quota::Reservations::default(),
            conditions: conditions::Conditions::default(),
        }
    }

    /// Mutating plugins: may change `object` (`Null` on delete and connect), before validation; returns warnings.
    ///
    /// # Errors
    /// The Status that refuses the write.
    pub async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<Vec<String>, Status> {
        let work = self.changed(attributes, object);
        self.context.meters.step(ADMIT, attributes.operation, work).await
    }

    async fn changed(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<Vec<String>, Status> {
        let (context, conditions) = (&self.context, &self.conditions);
        self.plugin(Plugin::NamespaceAutoProvision, attributes, namespaces::provide(context, attributes))
            .await?;
        let lifecycle = namespace_lifecycle::admit(context, attributes, object);
        self.plugin(Plugin::NamespaceLifecycle, attributes, lifecycle).await?;
        self.fill_in(attributes, object).await?;
        let mut warnings = Vec::new();
        if !select::is_exempt(attributes) {
            let webhooks = async {
                let (hooks, told) = (&self.webhooks, &mut warnings);
                let round = hooks.mutate(context, conditions, attributes, object, None, told).await?;
                if round.changed {
                    // Whoever came before may want to see what came after, once.
                    self.fill_in(attributes, object).await?;
                    hooks.mutate(context, conditions, attributes, object, Some(&round), told).await?;
                }
                Ok(())
            };
            if let Err(status) = self.plugin(Plugin::MutatingAdmissionWebhook, attributes, webhooks).await {
                return Err(status.warned(warnings));
            }
        }
        self.plugin(Plugin::AlwaysDeny, attributes, async { denied(attributes, object) }).await?;
        Ok(warnings)
    }

    /// One plugin of the step that may change objects, measured, where it is on.
    async fn plugin(
        &self,
        plugin: Plugin,
        attributes: &Attributes<'_>,
        work: impl Future<Output = Result<(), Status>>,
    ) -> Result<(), Status> {
        let Context { meters, plugins, .. } = &self.context;
        if !plugins.has(plugin) {
            return Ok(());
        }
        meters.plugin(plugin.name(), ADMIT, attributes.operation, work).await
    }

    /// Webhooks and policies for a request that connects to what is behind an object; no other plugin is about those. Returns warnings.
    ///
    /// # Errors
    /// The Status that refuses it.
    pub async fn connect(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<Vec<String>, Status> {
        let (context, conditions, hooks) = (&self.context, &self.conditions, &self.webhooks);
        let on = |plugin: Plugin| context.plugins.has(plugin);
        let mut told = Vec::new();
        if on(Plugin::MutatingAdmissionWebhook) {
            let round = hooks.mutate(context, conditions, attributes, object, None, &mut told).await?;
            if round.changed {
                hooks.mutate(context, conditions, attributes, object, Some(&round), &mut told).await?;
            }
        }
        if on(Plugin::ValidatingAdmissionPolicy) {
            told.extend(policy::validate(context, conditions, attributes, object).await?);
        }
        if on(Plugin::ValidatingAdmissionWebhook) {
            told.extend(hooks.validate(context, conditions, attributes, object).await?);
        }
        if on(Plugin::AlwaysDeny) {
            denied(attributes, object)?;
        }
        Ok(told)
    }

    /// The plugins that are part of this server.
    async fn fill_in(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let context = &self.context;
        /// One plugin; those that ask nobody are done at once.
        macro_rules! plugin {
            ($name:ident, $work:expr) => {
                self.plugin(Plugin::$name, attributes, async {
                    $work;
                    Ok(())
                })
                .await?
            };
        }
        if object.is_object() {
            plugin!(LimitRanger, limit_range::mutate(context, attributes, object));
            plugin!(ServiceAccount, service_account::mutate(context, attributes, object).await?);
        }
        plugin!(NodeRestriction, node_restriction::admit(context, attributes, object).await?);
        if !object.is_object() {
            return Ok(());
        }
        plugin!(TaintNodesByCondition, defaults::taint_new_node(attributes, object));
        plugin!(AlwaysPullImages, always_pull_images::mutate(attributes, object));
        plugin!(PodNodeSelector, node_selector::mutate(context, attributes, object).await?);
        plugin!(Priority, priority::mutate(context, attributes, object).await?);
        plugin!(DefaultTolerationSeconds, defaults::tolerate_for_a_while(context, attributes, object));
        plugin!(PodTolerationRestriction, tolerations::mutate(context, attributes, object).await?);
        plugin!(ExtendedResourceToleration, extended_resources::mutate(attributes, object));
        plugin!(DefaultStorageClass, defaults::storage_class(context, attributes, object));
        plugin!(StorageObjectInUseProtection, defaults::finalizers(attributes, object));
        plugin!(RuntimeClass, runtime_class::mutate(context, attributes, object).await?);
        plugin!(DefaultIngressClass, defaults::ingress_class(context, attributes, object));
        Ok(())
    }

    /// Validating plugins: see the final object, right before the store; returns warnings.
    ///
    /// # Errors
    /// The Status that refuses the write.
    pub async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Vec<String>, Status> {
        let work = self.judged(attributes, object);
        self.context.meters.step(VALIDATE, attributes.operation, work).await
    }

    async fn judged(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Vec<String>, Status> {
        let (context, meters, operation) = (&self.context, &self.context.meters, attributes.operation);
        /// One plugin, measured, where it is on.
        macro_rules! plugin {
            ($name:ident, $work:expr) => {
                if context.plugins.has(Plugin::$name) {
                    meters.plugin(Plugin::$name.name(), VALIDATE, operation, async { $work }).await?
                } else {
                    Default::default()
                }
            };
        }
        let mut warnings: Vec<String> = Vec::new();
        () = plugin!(NamespaceExists, namespaces::must_exist(context, attributes).await);
        () = plugin!(LimitPodHardAntiAffinityTopology, anti_affinity::validate(attributes, object));
        () = plugin!(LimitRanger, limit_range::validate(context, attributes, object));
        () = plugin!(ServiceAccount, service_account::validate(context, attributes, object).await);
        () = plugin!(AlwaysPullImages, always_pull_images::validate(attributes, object));
        warnings.append(&mut plugin!(PodSecurity, pod_security::validate(context, attributes, object)));
        () = plugin!(PodNodeSelector, node_selector::validate(context, attributes, object).await);
        () = plugin!(Priority, priority::validate(context, attributes, object));
        () = plugin!(PodTolerationRestriction, tolerations::validate(context, attributes, object).await);
        () = plugin!(EventRateLimit, event_rate::validate(context, attributes, object));
        () = plugin!(
            OwnerReferencesPermissionEnforcement,
            owner_references::validate(context, attributes, object).await
        );
        () = plugin!(PersistentVolumeClaimResize, storage::resize(context, attributes, object));
        () = plugin!(RuntimeClass, runtime_class::validate(context, attributes, object).await);
        () = plugin!(CertificateApproval, certificates::approve(context, attributes, object).await);
        () = plugin!(CertificateSigning, certificates::sign(context, attributes, object).await);
        () = plugin!(CertificateSubjectRestriction, certificates::of_whom(attributes, object));
        () = plugin!(DenyServiceExternalIPs, external_ips::validate(attributes, object));
        if attributes.request.group == "rbac.authorization.k8s.io" && object.is_object() {
            let authorization = &context.authorization;
            authorization
                .check_escalation(attributes.user, attributes.request, object, attributes.old)
                .await?;
        }
        if !select::is_exempt(attributes) {
            let conditions = &self.conditions;
            warnings.append(&mut plugin!(
                ValidatingAdmissionPolicy,
                policy::validate(context, conditions, attributes, object).await
            ));
            warnings.append(&mut plugin!(
                ValidatingAdmissionWebhook,
                self.webhooks.validate(context, conditions, attributes, object).await
            ));
        }
        () = plugin!(ResourceQuota, quota::validate(context, &self.reservations, attributes, object).await);
        () = plugin!(AlwaysDeny, denied(attributes, object));
        Ok(warnings)
    }
}

/// AlwaysDeny.
fn denied(attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
    Err(attributes.forbidden(object, "admission control is denying all modifications"))
}
