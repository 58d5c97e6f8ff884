//! CEL: any expression over an object, compiled and evaluated within its cost.
#![no_main]

use coracle_api::expression::{Checked, Environment, Scope};
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use std::sync::LazyLock;

static OBJECT: LazyLock<serde_json::Value> = LazyLock::new(|| {
    json!({"metadata": {"name": "n", "labels": {"a": "b"}}, "spec": {"replicas": 3, "on": true, "ratio": 0.5, "none": null,
        "names": ["a", "b", "c"], "numbers": (0..100).collect::<Vec<_>>(), "text": "x".repeat(1000), "time": "2026-01-01T00:00:00Z",
        "quantity": "1.5Gi", "url": "https://example.com:80/a?b=c", "cidr": "10.0.0.0/8", "ip": "10.1.2.3"}})
});

static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(Environment::open);

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(program) = Checked::compile(text, &ENVIRONMENT) else { return };
    let mut scope = Scope::default();
    scope.set("object", &OBJECT);
    scope.set("oldObject", &serde_json::Value::Null);
    let _ = (program.run(&scope), program.most(&ENVIRONMENT));
});
