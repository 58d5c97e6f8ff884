//! Watches, reflectors and controllers.

use super::{MANAGER, run};
use anyhow::{Context, Result, ensure};
use coracle_tests::Cluster;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use k8s_openapi::api::events::v1::Event as Recorded;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::runtime::reflector::{ObjectRef, store};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

fn map(name: &str) -> Result<ConfigMap> {
    Ok(serde_json::from_value(json!({"metadata": {"name": name, "labels": {"w": "1"}}, "data": {"n": "0"}}))?)
}

async fn set(maps: &Api<ConfigMap>, name: &str, value: &str) -> Result<()> {
    let patch = Patch::Merge(json!({"data": {"n": value}}));
    maps.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Watchers that list in pages and watchers that are sent the list see the same.
pub fn watchers(cluster: &Cluster) -> Result<()> {
    run(cluster, "rs-watch", async |client, namespace| {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let by_label = watcher::Config::default().labels("w=1");
        for (round, config) in
            [by_label.clone().page_size(1), by_label.clone().streaming_lists()].into_iter().enumerate()
        {
            follow(&maps, config, &format!("r{round}")).await?;
        }
        let metadata: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client, namespace);
        let mut metadata = pin!(watcher(metadata, by_label.streaming_lists()).applied_objects());
        let first = metadata.try_next().await?.context("the watch ended")?;
        ensure!(first.meta().labels.is_some());
        ensure!(first.types.as_ref().is_some_and(|types| types.kind == "PartialObjectMetadata"), "{first:?}");
        Ok(())
    })
}

/// What a reflector holds follows each write.
async fn follow(maps: &Api<ConfigMap>, config: watcher::Config, prefix: &str) -> Result<()> {
    let (one, two) = (format!("{prefix}-one"), format!("{prefix}-two"));
    maps.create(&PostParams::default(), &map(&one)?).await?;
    maps.create(&PostParams::default(), &map(&two)?).await?;
    let streamed = config.initial_list_strategy == watcher::InitialListStrategy::StreamingList;
    let (reader, writer) = store::<ConfigMap>();
    let mut stream = pin!(watcher(maps.clone(), config).reflect(writer));
    while !matches!(stream.try_next().await?.context("the watch ended")?, watcher::Event::InitDone) {}
    let namespace = maps.namespace().context("no namespace")?;
    let held = |name: &str| reader.get(&ObjectRef::new(name).within(namespace));
    let whole = || held(&one).is_some() && held(&two).is_some();
    // kube-rs lists pages as of now, but is sent lists from resourceVersion 0: what another apiserver's cache has by then.
    ensure!(whole() || streamed, "the list is not whole: {:?}", reader.state());
    while !whole() {
        stream.try_next().await?.context("the watch ended")?;
    }
    set(maps, &one, "1").await?;
    maps.delete(&two, &DeleteParams::default()).await?;
    let mut told = Vec::new();
    while told.len() < 2 {
        match stream.try_next().await?.context("the watch ended")? {
            watcher::Event::Apply(map) => told.push(format!("{} applied", map.name_any())),
            watcher::Event::Delete(map) => told.push(format!("{} deleted", map.name_any())),
            other => anyhow::bail!("{other:?} was not expected"),
        }
    }
    ensure!(told == [format!("{one} applied"), format!("{two} deleted")], "{told:?}");
    ensure!(held(&two).is_none());
    let value = held(&one).and_then(|map| map.data.clone()?.remove("n"));
    ensure!(value.as_deref() == Some("1"), "{value:?}");
    Ok(())
}

/// A controller with a finalizer and events: it cleans up before an object goes.
pub fn controller(cluster: &Cluster) -> Result<()> {
    run(cluster, "rs-controller", async |client, namespace| {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let controller = Controller::new(maps.clone(), watcher::Config::default().labels("w=1"));
        let context = Arc::new((maps.clone(), recorder(&client)));
        let mut rounds =
            pin!(controller.run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), context));
        let lives = async {
            let made = maps.create(&PostParams::default(), &map("ship")?).await?;
            let stamped =
                |map: Option<&ConfigMap>| map.is_some_and(|map| map.annotations().contains_key("seen"));
            await_condition(maps.clone(), "ship", stamped).await?;
            maps.delete("ship", &DeleteParams::default()).await?;
            let uid = made.uid().context("no uid")?;
            await_condition(maps.clone(), "ship", conditions::is_deleted(&uid)).await?;
            anyhow::Ok(())
        };
        tokio::select! {
            done = lives => done?,
            ended = async { while let Some(round) = rounds.next().await { if let Err(error) = round { return error.to_string(); } } "no more rounds".to_owned() } =>
                anyhow::bail!("the controller ended: {ended}"),
        }
        let events: Api<Recorded> = Api::namespaced(client, namespace);
        let fields = ListParams::default().fields("regarding.name=ship,reason=CastOff");
        let events = events.list(&fields).await?.items;
        ensure!(events.len() == 1 && events[0].note.as_deref() == Some("ship goes"), "{events:?}");
        Ok(())
    })
}

fn recorder(client: &Client) -> Recorder {
    Recorder::new(client.clone(), Reporter { controller: MANAGER.to_owned(), instance: None })
}

type Failed = kube::runtime::finalizer::Error<kube::Error>;

async fn reconcile(
    map: Arc<ConfigMap>,
    context: Arc<(Api<ConfigMap>, Recorder)>,
) -> std::result::Result<Action, Box<Failed>> {
    let (maps, recorder) = &*context;
    let step = async |event: Finalizer<ConfigMap>| -> kube::Result<Action> {
        match event {
            Finalizer::Apply(map) => {
                let seen = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"annotations": {"seen": "yes"}}});
                let ours = PatchParams::apply(MANAGER).force();
                maps.patch(&map.name_any(), &ours, &Patch::Apply(seen)).await?;
            }
            Finalizer::Cleanup(map) => {
                let about: ObjectReference = map.object_ref(&());
                let event = Event {
                    type_: EventType::Normal,
                    reason: "CastOff".to_owned(),
                    note: Some(format!("{} goes", map.name_any())),
                    action: "Cleanup".to_owned(),
                    secondary: None,
                };
                recorder.publish(&event, &about).await?;
            }
        }
        Ok(Action::await_change())
    };
    finalizer(maps, "tests.coracle.dev/anchor", map, step).await.map_err(Box::new)
}
