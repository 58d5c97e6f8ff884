//! The shared informers: one watch a kind, however many controllers read it.

use coracle_client::{Reflector, Scope, Store, controller_of};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::ObjectMeta;

/// The name of the ConfigMap that holds the cluster's CA in every namespace.
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";
/// The name of the ServiceAccount of pods that name none.
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// The type of Secrets that hold a ServiceAccount's token.
pub const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";
/// Their annotation that names the account.
pub const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

/// Index: Secrets by their ServiceAccount, as `namespace/name`.
pub const BY_ACCOUNT: &str = "account";
/// Index: objects by the uid of their controller.
pub const BY_OWNER: &str = "owner";
/// Index: objects without a controller, by namespace.
pub const ORPHANS: &str = "orphans";
/// Index: pods by the node that they are bound to.
pub const BY_NODE: &str = "node";
/// Index: EndpointSlices by their Service, as `namespace/name`.
pub const BY_SERVICE: &str = "service";

macro_rules! stores {
    ($($field:ident: $kind:ty,)*) => {
        pub struct Stores { $(pub $field: Store<$kind>,)* }
        impl Stores {
            /// Waits until every first list is in.
            pub async fn synced(&self) {
                $(self.$field.synced().await;)*
            }
        }
    };
}

stores! {
    pods: Pod,
    nodes: Node,
    namespaces: Namespace,
    service_accounts: ServiceAccount,
    config_maps: ConfigMap,
    services: Service,
    endpoints: Endpoints,
    endpoint_slices: EndpointSlice,
    claims: PersistentVolumeClaim,
    volumes: PersistentVolume,
    storage_classes: StorageClass,
    quotas: ResourceQuota,
    deployments: Deployment,
    replica_sets: ReplicaSet,
    replication_controllers: ReplicationController,
    stateful_sets: StatefulSet,
    daemon_sets: DaemonSet,
    revisions: ControllerRevision,
    jobs: Job,
    cron_jobs: CronJob,
    budgets: PodDisruptionBudget,
    leases: Lease,
    cluster_roles: ClusterRole,
    signing_requests: CertificateSigningRequest,
    tokens: Secret,
}

impl Stores {
    /// Starts all watches in `scope`.
    pub fn start(client: &kube::Client, scope: &Scope) -> Self {
        let c = || client.clone();
        Self {
            pods: owned(Api::all(c())).index(BY_NODE, node_of).start(scope),
            nodes: Reflector::new(Api::all(c())).start(scope),
            namespaces: Reflector::new(Api::all(c())).start(scope),
            service_accounts: Reflector::new(Api::all(c())).start(scope),
            config_maps: Reflector::new(Api::all(c()))
                .fields(format!("metadata.name={ROOT_CA_CONFIG_MAP}"))
                .start(scope),
            services: Reflector::new(Api::all(c())).start(scope),
            endpoints: Reflector::new(Api::all(c())).start(scope),
            endpoint_slices: Reflector::new(Api::all(c())).index(BY_SERVICE, service_of).start(scope),
            claims: Reflector::new(Api::all(c())).start(scope),
            volumes: Reflector::new(Api::all(c())).start(scope),
            storage_classes: Reflector::new(Api::all(c())).start(scope),
            quotas: Reflector::new(Api::all(c())).start(scope),
            deployments: Reflector::new(Api::all(c())).start(scope),
            replica_sets: owned(Api::all(c())).start(scope),
            replication_controllers: Reflector::new(Api::all(c())).start(scope),
            stateful_sets: Reflector::new(Api::all(c())).start(scope),
            daemon_sets: Reflector::new(Api::all(c())).start(scope),
            revisions: owned(Api::all(c())).start(scope),
            jobs: owned(Api::all(c())).start(scope),
            cron_jobs: Reflector::new(Api::all(c())).start(scope),
            budgets: Reflector::new(Api::all(c())).start(scope),
            leases: Reflector::new(Api::namespaced(c(), "kube-node-lease")).start(scope),
            cluster_roles: Reflector::new(Api::all(c())).start(scope),
            signing_requests: Reflector::new(Api::all(c())).start(scope),
            tokens: Reflector::new(Api::all(c()))
                .fields(format!("type={TOKEN_TYPE}"))
                .index(BY_ACCOUNT, account_of)
                .start(scope),
        }
    }
}

fn owned<K>(api: Api<K>) -> Reflector<K>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    Reflector::new(api).index(BY_OWNER, owner_of).index(ORPHANS, orphanage_of)
}

fn owner_of<K: kube::Resource>(object: &K) -> Vec<String> {
    controller_of(object.meta()).map(|owner| owner.uid.clone()).into_iter().collect()
}

fn orphanage_of<K: kube::Resource>(object: &K) -> Vec<String> {
    let ObjectMeta { namespace, .. } = object.meta();
    if controller_of(object.meta()).is_none() { namespace.clone().into_iter().collect() } else { Vec::new() }
}

fn node_of(pod: &Pod) -> Vec<String> {
    pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect()
}

fn account_of(secret: &Secret) -> Vec<String> {
    let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
    let account = secret.metadata.annotations.iter().filter_map(|annotations| annotations.get(ACCOUNT_NAME));
    account.map(|name| format!("{namespace}/{name}")).collect()
}

fn service_of(slice: &EndpointSlice) -> Vec<String> {
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    let service = slice.metadata.labels.iter().filter_map(|labels| labels.get("kubernetes.io/service-name"));
    service.map(|name| format!("{namespace}/{name}")).collect()
}

/// What `uid` controls, and what nobody controls in `namespace`: those that a claim sorts.
pub fn candidates<K: kube::Resource + Send + Sync + 'static>(
    store: &Store<K>,
    uid: &str,
    namespace: &str,
) -> Vec<std::sync::Arc<K>> {
    let mut found = store.by_index(BY_OWNER, uid);
    found.extend(store.by_index(ORPHANS, namespace));
    found
}
