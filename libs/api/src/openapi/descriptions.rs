//! What types and their fields are for, in Kubernetes' own words, which the k8s-openapi crate has.
//!
//! In: the schema of a definition. Out: the same with descriptions. They are gathered once, when they are first needed.

use k8s_openapi::schemars::SchemaGenerator;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::LazyLock;

/// What stands for the fields that every object has.
const EVERY_OBJECT: &str = "io.k8s.api.core.v1.Pod";

/// The descriptions of a definition.
struct Described {
    own: Option<Box<str>>,
    fields: Box<[(Box<str>, Box<str>)]>,
}

/// By the definition's name.
static DESCRIBED: LazyLock<HashMap<String, Described>> = LazyLock::new(gather);

/// Has the schemas of these types made, and of all that they are made of.
macro_rules! make {
    ($generator:ident, $($($part:ident)::+ { $($kind:ident),+ })+) => {
        $({
            use k8s_openapi::$($part)::+::{$($kind),+};
            $($generator.subschema_for::<$kind>();)+
        })+
    };
}

fn gather() -> HashMap<String, Described> {
    let mut generator = SchemaGenerator::default();
    make! { generator,
        api::admissionregistration::v1 {
            MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
            ValidatingWebhookConfiguration
        }
        api::apps::v1 { ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet }
        api::authentication::v1 { SelfSubjectReview, TokenRequest, TokenReview }
        api::authorization::v1 {
            LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview
        }
        api::autoscaling::v1 { HorizontalPodAutoscaler, Scale }
        api::autoscaling::v2 { HorizontalPodAutoscaler }
        api::batch::v1 { CronJob, Job }
        api::certificates::v1 { CertificateSigningRequest }
        api::coordination::v1 { Lease }
        api::core::v1 {
            Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume,
            PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, Service,
            ServiceAccount
        }
        api::discovery::v1 { EndpointSlice }
        api::events::v1 { Event }
        api::flowcontrol::v1 { FlowSchema, PriorityLevelConfiguration }
        api::networking::v1 { IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR }
        api::node::v1 { RuntimeClass }
        api::policy::v1 { Eviction, PodDisruptionBudget }
        api::rbac::v1 { ClusterRole, ClusterRoleBinding, Role, RoleBinding }
        api::scheduling::v1 { PriorityClass }
        api::storage::v1 { CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment }
        apiextensions_apiserver::pkg::apis::apiextensions::v1 { CustomResourceDefinition }
        apimachinery::pkg::apis::meta::v1 {
            APIGroupList, APIResourceList, APIVersions, DeleteOptions, ListMeta, Patch, Status
        }
        apimachinery::pkg::version { Info }
        kube_aggregator::pkg::apis::apiregistration::v1 { APIService }
    }
    let definitions = generator.take_definitions(true);
    definitions.into_iter().map(|(name, schema)| (name, Described::of(&schema))).collect()
}

fn text(schema: &Value) -> Option<Box<str>> {
    Some(schema.get("description")?.as_str()?.into())
}

impl Described {
    fn of(schema: &Value) -> Self {
        let fields = schema["properties"].as_object().into_iter().flatten();
        let fields = fields.filter_map(|(name, field)| Some((name.as_str().into(), text(field)?)));
        Self { own: text(schema), fields: fields.collect() }
    }
}

/// What a field of the definition `name` is for.
pub(super) fn of_field(name: &str, field: &str) -> Option<&'static str> {
    let (_, told) = DESCRIBED.get(name)?.fields.iter().find(|(known, _)| **known == *field)?;
    Some(told)
}

/// Adds to the schema of the definition `name` what it and its fields are for.
pub(super) fn describe(name: &str, schema: &mut Value) {
    if let Some(described) = DESCRIBED.get(name) {
        if let Some(own) = &described.own {
            schema["description"] = own.as_ref().into();
        }
        for (field, told) in &described.fields {
            if let Some(schema) = schema.pointer_mut(&format!("/properties/{field}")) {
                add(schema, told);
            }
        }
        describe_values(name, schema);
    } else if let Some(of) = name.strip_suffix("List") {
        describe_list(of, schema);
    }
}

/// The schema of the lists of the definition `of`, whose fields are mostly alike: what is not stands in the table.
fn describe_list(of: &str, schema: &mut Value) {
    let kind = of.rsplit('.').next().unwrap_or_default();
    let add_unless_told = |schema: Option<&mut Value>, told: &str| {
        if let Some(schema) = schema.filter(|schema| schema["description"].is_null()) {
            add(schema, told);
        }
    };
    add_unless_told(Some(schema), &format!("{kind}List is a list of {kind} objects."));
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    let told = properties.get("metadata").and_then(text);
    describe_every_object(properties);
    match properties.get_mut("metadata").and_then(Value::as_object_mut) {
        // Neither the requests nor their lists say what it is.
        Some(metadata) if of == "io.k8s.api.certificates.v1.CertificateSigningRequest" => {
            metadata.remove("description");
        }
        _ => add(&mut properties["metadata"], told.as_deref().unwrap_or("Standard list metadata.")),
    }
    add_unless_told(properties.get_mut("items"), &format!("List of {kind} objects."));
}

/// What the values of fields mean, by the field's definition and name.
static VALUES: LazyLock<HashMap<(&str, &str), String>> = LazyLock::new(|| {
    let mut values: HashMap<(&str, &str), String> = HashMap::new();
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for line in include_str!("../../data/enums.txt").lines().filter(|line| !line.starts_with('#')) {
        if let Some(named) = line.strip_prefix("= ") {
            fields = named.split(' ').filter_map(|field| field.rsplit_once('.')).collect();
        } else if let Some((value, meaning)) = line.split_once('|') {
            let space = if meaning.is_empty() { "" } else { " " };
            for field in &fields {
                let text = values.entry(*field).or_insert_with(|| "Possible enum values:".to_owned());
                text.push_str(&format!("\n - `\"{value}\"`{space}{meaning}"));
            }
        }
    }
    values
});

/// Adds to the fields of the definition `name` what their values mean.
fn describe_values(name: &str, schema: &mut Value) {
    let name = name.strip_prefix("io.k8s.").unwrap_or(name);
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (field, schema) in properties.iter_mut().filter(|(_, schema)| schema["enum"].is_array()) {
        if let Some(values) = VALUES.get(&(name, field.as_str())) {
            let told = text(schema).map_or_else(|| values.clone(), |told| format!("{told}\n\n{values}"));
            add(schema, &told);
        }
    }
}

/// Describes the fields that every object has, whatever its kind.
pub(super) fn describe_every_object(properties: &mut Map<String, Value>) {
    let Some(described) = DESCRIBED.get(EVERY_OBJECT) else { return };
    for (field, told) in &described.fields {
        if matches!(field.as_ref(), "apiVersion" | "kind" | "metadata")
            && let Some(field) = properties.get_mut(field.as_ref())
        {
            add(field, told);
        }
    }
}

fn add(field: &mut Value, told: &str) {
    if let Some(field) = field.as_object_mut() {
        field.insert("description".to_owned(), told.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_described_and_every_field_that_kubernetes_describes() {
        // Kubernetes says nothing of most fields of these, and k8s-openapi has no schema of the last.
        let bare = |name: &str| {
            ["JSONSchemaProps", "ExternalDocumentation", "version.Info", "WatchEvent"]
                .iter()
                .any(|end| name.ends_with(end))
        };
        let mut lacking = Vec::new();
        for (name, schema) in super::super::SCHEMAS.iter().filter(|(name, _)| !bare(name)) {
            let mut schema = schema.clone();
            describe(name, &mut schema);
            let lacks = |schema: &Value| !schema["description"].is_string();
            let fields = schema["properties"].as_object().into_iter().flatten();
            let fields = fields.filter(|(_, field)| lacks(field));
            lacking.extend(fields.map(|(field, _)| format!("{name}.{field}")));
            if lacks(&schema) {
                lacking.push(name.clone());
            }
        }
        assert_eq!(
            lacking,
            [
                "io.k8s.api.certificates.v1.CertificateSigningRequest.metadata",
                "io.k8s.api.certificates.v1.CertificateSigningRequestList.metadata",
                "io.k8s.api.networking.v1.IngressRule.http"
            ]
        );
    }
}
