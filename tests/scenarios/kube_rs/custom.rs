//! A kind derived from a Rust type.

use super::{MANAGER, refused, run};
use anyhow::{Result, ensure};
use coracle_tests::Cluster;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, CustomResource, CustomResourceExt, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What a vessel should be.
#[derive(CustomResource, Clone, Debug, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rs.coracle.dev",
    version = "v1",
    kind = "Vessel",
    namespaced,
    status = "VesselStatus",
    shortname = "vs",
    category = "fleet",
    selectable = ".spec.hull",
    scale(spec_replicas_path = ".spec.oars", status_replicas_path = ".status.oars"),
    printcolumn(name = "Hull", json_path = ".spec.hull", type_ = "string")
)]
#[serde(rename_all = "camelCase")]
pub struct VesselSpec {
    #[x_kube(validation = "self == oldSelf")]
    hull: String,
    #[x_kube(validation = "self <= 8")]
    #[serde(default = "two")]
    oars: i32,
}

/// What a vessel is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct VesselStatus {
    oars: i32,
}

fn two() -> i32 {
    2
}

/// A derived kind is established, defaulted, validated, selected, scaled, and gone with its definition.
pub fn derived_kind(cluster: &Cluster) -> Result<()> {
    run(cluster, "rs-custom", async |client, namespace| {
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        let (name, apply) = (Vessel::crd_name(), PatchParams::apply(MANAGER));
        definitions.patch(name, &apply, &Patch::Apply(Vessel::crd())).await?;
        let made = await_condition(definitions.clone(), name, conditions::is_crd_established()).await?;
        let lives = lives(client, namespace).await;
        definitions.delete(name, &DeleteParams::default()).await?;
        let uid = made.and_then(|made| made.uid()).unwrap_or_default();
        await_condition(definitions, name, conditions::is_deleted(&uid)).await?;
        lives
    })
}

async fn lives(client: Client, namespace: &str) -> Result<()> {
    let vessels: Api<Vessel> = Api::namespaced(client, namespace);
    let hide = json!({"apiVersion": "rs.coracle.dev/v1", "kind": "Vessel", "metadata": {"name": "a"}, "spec": {"hull": "hide"}});
    let made = vessels.patch("a", &PatchParams::apply(MANAGER), &Patch::Apply(hide)).await?;
    ensure!(made.spec.oars == 2, "no default: {made:?}");
    let spec = |hull: &str, oars| VesselSpec { hull: hull.to_owned(), oars };
    vessels.create(&PostParams::default(), &Vessel::new("b", spec("oak", 4))).await?;
    let refusal = refused(vessels.create(&PostParams::default(), &Vessel::new("c", spec("oak", 9))).await)?;
    ensure!(
        refusal.message.contains("spec.oars: Invalid value: \"integer\": failed rule: self <= 8"),
        "{refusal:?}"
    );
    let merge = |value| Patch::Merge(value);
    let other_hull = merge(json!({"spec": {"hull": "steel"}}));
    let refusal = refused(vessels.patch("a", &PatchParams::default(), &other_hull).await)?;
    ensure!(refusal.is_invalid() && refusal.message.contains("failed rule: self == oldSelf"), "{refusal:?}");
    let oak = vessels.list(&ListParams::default().fields("spec.hull=oak")).await?;
    ensure!(oak.items.len() == 1 && oak.items[0].name_any() == "b");
    let status = merge(json!({"status": {"oars": 2}, "spec": {"oars": 7}}));
    let seen = vessels.patch_status("a", &PatchParams::default(), &status).await?;
    ensure!(seen.spec.oars == 2 && seen.status.is_some_and(|status| status.oars == 2));
    vessels.patch_scale("a", &PatchParams::default(), &merge(json!({"spec": {"replicas": 6}}))).await?;
    let scale = vessels.get_scale("a").await?;
    ensure!(scale.spec.and_then(|spec| spec.replicas) == Some(6));
    ensure!(vessels.get("a").await?.spec.oars == 6);
    Ok(())
}
