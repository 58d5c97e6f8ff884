//! Objects as the texts of refused patches show them: as Go prints what it has in hand.

use coracle_api::decode;
use coracle_api::kinds::Kind;
use serde_json::{Map, Value};

/// A patched object: sorted on top, where the patch library has taken it apart, and in Go's order below.
pub(super) fn patched(object: &Value, old: &Value, kind: &Kind) -> String {
    let Some(map) = object.as_object() else { return object.to_string() };
    if kind.custom.is_some() {
        return object.to_string();
    }
    let fields = map.iter().map(|(key, value)| {
        let text = match value.as_object().filter(|_| key == "metadata") {
            Some(map) if old.get(key) == Some(value) => in_go_order(map, decode::metadata_fields()),
            Some(map) => in_go_order(map, &[]),
            None => value.to_string(),
        };
        format!("{}:{text}", Value::from(key.as_str()))
    });
    // The status is not written where it is empty.
    let empty = |text: &String| text == "\"status\":{}";
    format!("{{{}}}", fields.filter(|text| !empty(text)).collect::<Vec<_>>().join(","))
}

/// Metadata in an order of its fields; what follows them is sorted.
fn in_go_order(metadata: &Map<String, Value>, order: &[String]) -> String {
    let texts = ordered(metadata, order).map(|(key, value)| {
        let text = match value.as_array().filter(|_| key == "managedFields") {
            Some(entries) => format!("[{}]", entries.iter().map(owner).collect::<Vec<_>>().join(",")),
            None => value.to_string(),
        };
        format!("{}:{text}", Value::from(key.as_str()))
    });
    format!("{{{}}}", texts.collect::<Vec<_>>().join(","))
}

/// The fields of an owner, in Go's order.
fn owner(entry: &Value) -> String {
    let order = ["manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource"];
    let Some(map) = entry.as_object() else { return entry.to_string() };
    let texts = ordered(map, &order).map(|(key, value)| format!("{}:{value}", Value::from(key.as_str())));
    format!("{{{}}}", texts.collect::<Vec<_>>().join(","))
}

fn ordered<'a>(
    map: &'a Map<String, Value>,
    order: &[impl AsRef<str>],
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let place = |key: &str| order.iter().position(|field| field.as_ref() == key).unwrap_or(order.len());
    let mut fields: Vec<(&String, &Value)> = map.iter().collect();
    fields.sort_by_key(|(key, _)| place(key));
    fields.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::kinds;
    use serde_json::json;

    #[test]
    fn refused_patches_are_shown_as_go_has_them() {
        let maps = kinds::by_resource("", "v1", "configmaps").expect("configmaps");
        let old = json!({"kind": "ConfigMap", "metadata": {"uid": "u", "name": "c", "creationTimestamp": "t", "namespace": "n"}});
        let mut new = old.clone();
        new["data"] = json!({"x": 1});
        assert_eq!(
            patched(&new, &old, maps),
            r#"{"data":{"x":1},"kind":"ConfigMap","metadata":{"name":"c","namespace":"n","uid":"u","creationTimestamp":"t"}}"#
        );
    }
}
