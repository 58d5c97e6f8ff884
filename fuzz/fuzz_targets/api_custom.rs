//! Custom kinds: a structural schema and an object by it, with a NUL between them. The schema is judged as part of its
//! definition; the object is decoded, pruned, defaulted, validated and shown.
#![no_main]

use coracle_api::{custom, decode, defaults, kinds, strategy, table, validate};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fn definition(schema: Value, columns: Value) -> Value {
    let names = json!({"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "foos.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [{"name": "v1", "served": true,
            "storage": true, "schema": {"openAPIV3Schema": schema}, "additionalPrinterColumns": columns,
            "subresources": {"status": {}}}]},
        "status": {"acceptedNames": names, "conditions": [{"type": "Established", "status": "True"}]}})
}

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (schema, object, path) = (part(), part(), String::from_utf8_lossy(part()).into_owned());
    let Ok(schema) = decode::document_of_json(schema) else { return };
    let columns = json!([{"name": "A", "type": "string", "jsonPath": path}]);
    let mut definition = definition(schema, columns);
    let crd = kinds::by_gvk("apiextensions.k8s.io/v1", "CustomResourceDefinition").expect("a kind");
    let Ok(decoded) = decode::canonical(definition, crd) else { return };
    definition = decoded.object;
    defaults::apply(&mut definition, crd);
    if !validate::create(&definition, crd, validate::Policy::default()).is_empty() {
        return;
    }
    let kinds = custom::kinds(&definition);
    let Some(kind) = kinds.first() else { return };
    let Ok(Value::Object(mut object)) = decode::document_of_json(object) else { return };
    object.insert("apiVersion".to_owned(), json!("example.com/v1"));
    object.insert("kind".to_owned(), json!("Foo"));
    let Ok(decoded) = decode::json(Value::Object(object).to_string().as_bytes(), kind) else { return };
    let mut object = decoded.object;
    defaults::apply(&mut object, kind);
    let mut twice = object.clone();
    defaults::apply(&mut twice, kind);
    assert_eq!(twice, object, "defaults of defaults");
    strategy::prepare_create(&mut object, kind);
    let _ = validate::create(&object, kind, validate::Policy::default());
    let cells = table::cells(kind, &object, jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(Some(cells.len()), table::columns(kind).as_array().map(Vec::len));
    let _ = validate::update(&twice, &object, kind, "", validate::Policy::default(), &mut Vec::new());
});
