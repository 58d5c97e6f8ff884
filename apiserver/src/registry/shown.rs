//! Objects as the texts of refused patches show them: as Go prints what it has in hand.

use coracle_api::decode;
use coracle_api::kinds::Kind;
use serde_json::Value;

/// A patched object: sorted on top, where the patch library has taken it apart, and in Go's order below.
pub(super) fn patched(object: &Value, old: &Value, kind: &Kind) -> String {
    let Some(map) = object.as_object() else { return object.to_string() };
    let fields = map.iter().map(|(key, value)| {
        let text = if key == "metadata" && old.get(key) == Some(value) {
            in_go_order(value, decode::metadata_fields())
        } else {
            value.to_string()
        };
        format!("{}:{text}", Value::from(key.as_str()))
    });
    // The status is not written where it is empty.
    let empty = |text: &String| kind.custom.is_none() && text == "\"status\":{}";
    format!("{{{}}}", fields.filter(|text| !empty(text)).collect::<Vec<_>>().join(","))
}

fn in_go_order(object: &Value, order: &[String]) -> String {
    let Some(map) = object.as_object() else { return object.to_string() };
    let place = |key: &str| order.iter().position(|field| field == key).unwrap_or(order.len());
    let mut fields: Vec<(&String, &Value)> = map.iter().collect();
    fields.sort_by_key(|(key, _)| place(key));
    let texts: Vec<String> =
        fields.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str()))).collect();
    format!("{{{}}}", texts.join(","))
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
