//! How aggregated servers verify callers: the ConfigMap `extension-apiserver-authentication` with the CAs of clients and of the
//! front proxy, and the names of the headers that it sets.

use crate::authentication::AuthenticationArgs;
use crate::reader::{Objects, Reader, SERVER};
use coracle_api::status::{GroupResource, Status};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// Keys that hold certificates; the others hold lists.
const BUNDLES: [&str; 2] = ["client-ca-file", "requestheader-client-ca-file"];

async fn read(path: &Path) -> Result<String, Status> {
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|error| Status::internal(format!("cannot read {}: {error}", path.display())))
}

/// Makes the ConfigMap say what this server's flags say.
///
/// # Errors
/// A file cannot be read, or the store not be reached.
pub async fn publish(
    reader: &dyn Reader,
    objects: &dyn Objects,
    args: &AuthenticationArgs,
) -> Result<(), Status> {
    let mut own = Map::new();
    if let Some(path) = &args.client_ca_file {
        own.insert("client-ca-file".to_owned(), json!(read(path).await?));
    }
    if let Some(path) = &args.requestheader_client_ca_file {
        own.insert("requestheader-client-ca-file".to_owned(), json!(read(path).await?));
        let lists = [
            ("allowed-names", json!(args.front_proxies())),
            ("extra-headers-prefix", json!(args.requestheader_extra_headers_prefix)),
            ("group-headers", json!(args.requestheader_group_headers)),
            ("uid-headers", json!(args.requestheader_uid_headers)),
            ("username-headers", json!(args.requestheader_username_headers)),
        ];
        // Nobody is told of what nobody says.
        let is_said = |(key, list): &(&str, Value)| *key != "uid-headers" || *list != json!([]);
        for (key, list) in lists.into_iter().filter(is_said) {
            own.insert(format!("requestheader-{key}"), json!(list.to_string()));
        }
    }
    if own.is_empty() {
        return Ok(());
    }
    let of = GroupResource::new("", "configmaps");
    let change = |object: &Value| {
        let data = merged(&object["data"], &own);
        let mut object = object.clone();
        let changed = object["data"] != data;
        object["data"] = data;
        changed.then_some(object)
    };
    match reader.get(&of, NAMESPACE, NAME) {
        Some(known) if change(&known).is_none() => return Ok(()),
        Some(_) => {}
        None => {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": NAME, "namespace": NAMESPACE}, "data": own});
            match objects.create(&of, NAMESPACE, object, SERVER).await {
                Err(status) if status.code == 409 => {}
                done => return done.map(drop),
            }
        }
    }
    objects.modify(&of, NAMESPACE, NAME, SERVER, &change).await.map(drop)
}

/// What stands there and what this server adds: while servers with other CAs run, all of them are believed.
fn merged(known: &Value, own: &Map<String, Value>) -> Value {
    let mut merged = known.as_object().cloned().unwrap_or_default();
    for (key, value) in own {
        let (known, own) = (merged.get(key).and_then(Value::as_str), value.as_str().unwrap_or_default());
        let Some(known) = known.filter(|known| !known.trim().is_empty()) else {
            merged.insert(key.clone(), value.clone());
            continue;
        };
        let text = if BUNDLES.contains(&key.as_str()) {
            if known.contains(own.trim()) { known.to_owned() } else { format!("{}\n{own}", known.trim_end()) }
        } else {
            lists(known, own)
        };
        merged.insert(key.clone(), json!(text));
    }
    Value::Object(merged)
}

/// The union of two lists.
fn lists(known: &str, own: &str) -> String {
    let read = |text: &str| serde_json::from_str::<Vec<String>>(text).unwrap_or_default();
    let (known, own) = (read(known), read(own));
    let all: BTreeSet<String> = known.into_iter().chain(own).collect();
    json!(all).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_believe_adds_up() {
        let own = json!({"client-ca-file": "A\n", "requestheader-allowed-names": "[\"a\"]"});
        let own = own.as_object().expect("map");
        let rows = [
            (Value::Null, Value::Object(own.clone())),
            (Value::Object(own.clone()), Value::Object(own.clone())),
            (
                json!({"client-ca-file": "B\n", "requestheader-allowed-names": "[\"b\"]", "other": "x"}),
                json!({"client-ca-file": "B\nA\n", "requestheader-allowed-names": "[\"a\",\"b\"]", "other": "x"}),
            ),
            (
                json!({"client-ca-file": "B\nA\n", "requestheader-allowed-names": "no list"}),
                json!({"client-ca-file": "B\nA\n", "requestheader-allowed-names": "[\"a\"]"}),
            ),
        ];
        for (known, want) in rows {
            assert_eq!(merged(&known, own), want);
            assert_eq!(merged(&want, own), want);
        }
    }
}
