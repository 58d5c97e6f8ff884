//! Label and field selectors, and other small languages: quantities, printer columns. What is read is written and read again.
#![no_main]

use coracle_api::quantity::Quantity;
use coracle_api::selector::{FieldSelector, LabelSelector};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let object = json!({"metadata": {"name": "n", "labels": {"a": "b", "n": "5"}}, "spec": {"nodeName": "x"}});
    if let Ok(selector) = LabelSelector::parse(text) {
        let matches = selector.matches(&object["metadata"]["labels"]);
        let again = LabelSelector::parse(&selector.to_string()).expect("what was written can be read");
        assert_eq!(again.to_string(), selector.to_string());
        assert_eq!(again.matches(&object["metadata"]["labels"]), matches, "{selector}");
    }
    for (version, kind) in [("v1", "Pod"), ("v1", "ConfigMap"), ("batch/v1", "Job")] {
        let _ = FieldSelector::parse(text, version, kind).map(|selector| selector.matches(&object));
    }
    let _ = FieldSelector::parse_custom(text, true, &[".spec.nodeName"]).map(|selector| selector.matches(&object));
    if let Ok(quantity) = text.parse::<Quantity>() {
        let again: Quantity = quantity.to_string().parse().expect("what was written can be read");
        assert_eq!(again.to_string(), quantity.to_string());
    }
});
