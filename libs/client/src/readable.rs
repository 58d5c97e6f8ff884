//! One object of a list or a watch, read for itself: one that cannot be read stands in nobody's way.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::WatchEvent;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// How Go's zero time reads: what a Kubernetes client takes for the `null` that an apiserver writes for it.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";
/// The one time that every condition has, and that may be zero: whoever writes a condition may leave it out.
const TIME_OF_CONDITION: &str = "lastTransitionTime";

/// An object, or what is known of one that is not as its kind should be.
#[derive(Clone, Debug)]
pub enum Readable<K> {
    /// It could be read.
    Object(K),
    /// It could not: its metadata, and why.
    Unreadable(Box<ObjectMeta>, String),
}

impl<K: kube::Resource> Readable<K> {
    /// Its metadata.
    pub fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Object(object) => object.meta(),
            Self::Unreadable(meta, _) => meta,
        }
    }

    /// The object, if it could be read; `of` says in the log whose it is.
    pub fn object(self, of: &str) -> Option<K> {
        match self {
            Self::Object(object) => Some(object),
            Self::Unreadable(meta, error) => {
                let (namespace, name) = (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
                tracing::warn!(reflector = of, namespace, name, error, "an object cannot be read; going on");
                None
            }
        }
    }
}

impl<K: DeserializeOwned> Readable<K> {
    fn of(text: &str) -> Self {
        #[derive(Default, Deserialize)]
        struct Named {
            #[serde(default)]
            metadata: ObjectMeta,
        }
        serde_json::from_str(text).or_else(|_| repaired(text)).map_or_else(
            |error| {
                let named: Named = serde_json::from_str(text).unwrap_or_default();
                Self::Unreadable(Box::new(named.metadata), error.to_string())
            },
            Self::Object,
        )
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Readable<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|text| Self::of(text.get()))
    }
}

/// The event in a line of a watch.
///
/// # Errors
/// It is none.
pub fn event<K: DeserializeOwned>(line: &str) -> serde_json::Result<WatchEvent<Readable<K>>> {
    #[derive(Deserialize)]
    struct Told<'a> {
        r#type: String,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let Told { r#type, object } = serde_json::from_str(line)?;
    let object = object.get();
    Ok(match r#type.as_str() {
        "ADDED" => WatchEvent::Added(Readable::of(object)),
        "MODIFIED" => WatchEvent::Modified(Readable::of(object)),
        "DELETED" => WatchEvent::Deleted(Readable::of(object)),
        "BOOKMARK" => WatchEvent::Bookmark(serde_json::from_str(object)?),
        _ => WatchEvent::Error(serde_json::from_str(object)?),
    })
}

fn repaired<K: DeserializeOwned>(text: &str) -> serde_json::Result<K> {
    let mut value: Value = serde_json::from_str(text)?;
    fill_in_times(&mut value);
    serde_json::from_value(value)
}

fn fill_in_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if field.is_null() && name == TIME_OF_CONDITION {
                    *field = Value::from(ZERO_TIME);
                }
                fill_in_times(field);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(fill_in_times),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::fake::FakeApi;
    use crate::{Key, Reflector, Scope, Store};
    use coracle_daemon::Tasks;
    use k8s_openapi::api::core::v1::Service;
    use kube::Api;
    use serde_json::{Value, json};

    const SERVICES: &str = "/api/v1/namespaces/ns/services";

    fn service(name: &str, spec: &Value, status: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "ns"}, "spec": spec, "status": status})
    }

    fn odd(api: &FakeApi, when: &str) {
        let condition =
            json!({"type": "A", "status": "True", "reason": "R", "message": "", "lastTransitionTime": null});
        let timeless = json!({"conditions": [condition]});
        api.create(SERVICES, service(&format!("timeless-{when}"), &json!({}), &timeless));
        api.create(SERVICES, service(&format!("broken-{when}"), &json!({"ports": "none"}), &json!({})));
        api.create(SERVICES, service(&format!("good-{when}"), &json!({}), &json!({})));
    }

    #[tokio::test]
    async fn objects_that_are_not_as_they_should_be_hold_up_no_others() {
        let (api, last) = (FakeApi::default(), Key::new("ns", "good-watched"));
        odd(&api, "listed");
        let tasks = Tasks::new();
        let store: Store<Service> = Reflector::new(Api::all(api.client())).start(&Scope::new(&tasks));
        store.synced().await;
        let changes = store.changes();
        odd(&api, "watched");
        while store.get(&last).is_none() {
            changes.next().await;
        }
        let mut seen: Vec<_> = store.list().iter().filter_map(|one| one.metadata.name.clone()).collect();
        seen.sort();
        assert_eq!(seen, ["good-listed", "good-watched", "timeless-listed", "timeless-watched"]);
        let timeless = store.get(&Key::new("ns", "timeless-watched")).expect("seen");
        let conditions = timeless.status.as_ref().and_then(|status| status.conditions.as_ref());
        assert_eq!(conditions.expect("read")[0].last_transition_time.0.to_string(), super::ZERO_TIME);
        api.delete(&format!("{SERVICES}/broken-watched"));
        api.delete(&format!("{SERVICES}/good-watched"));
        while store.get(&last).is_some() {
            changes.next().await;
        }
    }
}
