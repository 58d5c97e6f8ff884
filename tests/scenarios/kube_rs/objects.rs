//! Objects, one and many.

use super::{MANAGER, refused, run};
use anyhow::{Context, Result, ensure};
use coracle_tests::Cluster;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
    ValidationDirective,
};
use kube::discovery::{Scope, verbs};
use kube::{Api, Client, Discovery, ResourceExt};
use serde_json::json;

fn map(name: &str, value: &str) -> Result<ConfigMap> {
    let map = json!({"metadata": {"name": name, "labels": {"book": "log"}}, "data": {"n": value}});
    Ok(serde_json::from_value(map)?)
}

/// The verbs of one object, pages of many, and what other writers do meanwhile.
pub fn reads_and_writes(cluster: &Cluster) -> Result<()> {
    run(cluster, "rs-objects", async |client, namespace| {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        one(&maps).await?;
        many(&maps).await?;
        discovered(client, namespace).await
    })
}

async fn one(maps: &Api<ConfigMap>) -> Result<()> {
    let post = PostParams::default();
    ensure!(maps.get_opt("a").await?.is_none());
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &map("a", "0")?).await?;
    ensure!(maps.get_metadata_opt("a").await?.is_none(), "a dry run made it");
    let made = maps.create(&post, &map("a", "0")?).await?;
    ensure!(refused(maps.create(&post, &made).await)?.code == 500, "it had a resourceVersion");
    ensure!(refused(maps.create(&post, &map("a", "0")?).await)?.is_already_exists());
    let mut next = made.clone();
    next.data.get_or_insert_default().insert("n".to_owned(), "1".to_owned());
    let replaced = maps.replace("a", &post, &next).await?;
    ensure!(replaced.resource_version() != made.resource_version());
    ensure!(refused(maps.replace("a", &post, &next).await)?.is_conflict());
    ensure!(maps.get_metadata("a").await?.metadata.uid == made.metadata.uid);
    let entry = maps.entry("a").await?.and_modify(|map| {
        map.data.get_or_insert_default().insert("entry".to_owned(), "1".to_owned());
    });
    let mut entry = entry.or_insert(ConfigMap::default);
    entry.commit(&post).await?;
    let other = Preconditions { uid: Some("b".to_owned()), ..Preconditions::default() };
    ensure!(refused(maps.delete("a", &DeleteParams::default().preconditions(other)).await)?.is_conflict());
    maps.delete("a", &DeleteParams::default().dry_run()).await?;
    ensure!(maps.delete("a", &DeleteParams::foreground()).await?.is_left(), "it waits for what it owns");
    kube::runtime::wait::await_condition(
        maps.clone(),
        "a",
        kube::runtime::wait::conditions::is_deleted(&made.uid().context("no uid")?),
    )
    .await?;
    ensure!(refused(maps.delete("a", &DeleteParams::default()).await)?.is_not_found());
    Ok(())
}

async fn many(maps: &Api<ConfigMap>) -> Result<()> {
    for n in 0..7 {
        maps.create(&PostParams::default(), &map(&format!("page-{n}"), "0")?).await?;
    }
    let (mut names, mut page) = (Vec::new(), ListParams::default().labels("book=log").limit(3));
    loop {
        let list = maps.list_metadata(&page).await?;
        names.extend(list.items.iter().map(ResourceExt::name_any));
        let Some(next) = list.metadata.continue_.filter(|token| !token.is_empty()) else { break };
        ensure!(list.metadata.remaining_item_count.is_none(), "a selector hides how many are left");
        page = page.continue_token(&next);
    }
    ensure!(names == (0..7).map(|n| format!("page-{n}")).collect::<Vec<_>>(), "{names:?}");
    let one = maps.list(&ListParams::default().fields("metadata.name=page-4")).await?;
    ensure!(one.items.len() == 1);
    let from_cache = maps.list(&ListParams::default().match_any().labels("book=log")).await?;
    ensure!(from_cache.items.len() == 7);
    let gone = ListParams::default().labels("book=log");
    maps.delete_collection(&DeleteParams::default(), &gone).await?;
    ensure!(maps.list(&gone).await?.items.is_empty());
    Ok(())
}

/// Kinds that the client learns from discovery.
async fn discovered(client: Client, namespace: &str) -> Result<()> {
    let discovery = Discovery::new(client.clone()).filter(&["apps"]).run_aggregated().await?;
    let group = discovery.get("apps").context("no group apps")?;
    let (kind, abilities) = group.recommended_kind("Deployment").context("no deployments")?;
    ensure!(abilities.scope == Scope::Namespaced && abilities.supports_operation(verbs::PATCH));
    ensure!(abilities.subresources.iter().any(|(kind, _)| kind.plural == "scale"), "{abilities:?}");
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &kind);
    let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let params = PatchParams::apply(MANAGER);
    let made = api.patch("d", &params, &Patch::Apply(&body)).await?;
    ensure!(made.data["spec"]["progressDeadlineSeconds"] == 600, "{made:?}");
    ensure!(api.list(&ListParams::default()).await?.items.len() == 1);
    Ok(())
}

/// Each sort of patch, through each way into an object.
pub fn patches(cluster: &Cluster) -> Result<()> {
    run(cluster, "rs-patches", async |client, namespace| {
        let api: Api<Deployment> = Api::namespaced(client, namespace);
        let body = |n: i32| {
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
                "replicas": n, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
        };
        let ours = PatchParams::apply(MANAGER);
        api.patch("d", &ours, &Patch::Apply(&body(0))).await?;
        let theirs = PatchParams::apply("other");
        let conflict = refused(api.patch("d", &theirs, &Patch::Apply(&body(2))).await)?;
        ensure!(conflict.is_conflict() && conflict.message.contains(".spec.replicas"), "{conflict:?}");
        ensure!(conflict.details.is_some_and(|details| details.causes.len() == 1));
        api.patch("d", &theirs.clone().force(), &Patch::Apply(&body(2))).await?;
        scaled(&api).await?;
        let strategic =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "e", "image": "j"}]}}}});
        let both = api.patch("d", &PatchParams::default(), &Patch::Strategic(strategic)).await?;
        let containers = both.spec.and_then(|spec| spec.template.spec).context("no template")?.containers;
        ensure!(containers.len() == 2, "{containers:?}");
        let test: json_patch::Patch =
            serde_json::from_value(json!([{"op": "test", "path": "/spec/replicas", "value": 7}]))?;
        let status = refused(api.patch("d", &PatchParams::default(), &Patch::<()>::Json(test)).await)?;
        ensure!(status.is_invalid(), "{status:?}");
        let strict =
            PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::default() };
        let status = refused(api.patch("d", &strict, &Patch::Merge(json!({"spec": {"replicaz": 1}}))).await)?;
        ensure!(status.message.contains("unknown field \"spec.replicaz\""), "{status:?}");
        let metadata = api
            .patch_metadata(
                "d",
                &PatchParams::default(),
                &Patch::Merge(json!({"metadata": {"labels": {"l": "1"}}})),
            )
            .await?;
        ensure!(metadata.labels().contains_key("l"));
        Ok(())
    })
}

/// Subresources: scale and status.
async fn scaled(api: &Api<Deployment>) -> Result<()> {
    let scale = api.get_scale("d").await?;
    ensure!(scale.spec.as_ref().and_then(|spec| spec.replicas) == Some(2), "{scale:?}");
    ensure!(scale.status.as_ref().and_then(|status| status.selector.as_deref()) == Some("a=b"), "{scale:?}");
    let fewer = Patch::Merge(json!({"spec": {"replicas": 1}}));
    api.patch_scale("d", &PatchParams::default(), &fewer).await?;
    emptied(api).await?;
    let note = json!({"metadata": {"annotations": {"note": "1"}}, "spec": {"replicas": 5}, "status": {"collisionCount": 3}});
    let seen = api.patch_status("d", &PatchParams::default(), &Patch::Merge(note)).await?;
    ensure!(seen.status.and_then(|status| status.collision_count) == Some(3));
    ensure!(seen.spec.and_then(|spec| spec.replicas) == Some(0), "the spec was written through the status");
    Ok(())
}

/// Scales to nothing by reading and replacing; again when the controller wrote its status in between.
async fn emptied(api: &Api<Deployment>) -> Result<()> {
    loop {
        let mut scale = api.get_scale("d").await?;
        scale.spec.get_or_insert_default().replicas = Some(0);
        match api.replace_scale("d", &PostParams::default(), &scale).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            other => return other.map(drop).context("replacing the scale"),
        }
    }
}
