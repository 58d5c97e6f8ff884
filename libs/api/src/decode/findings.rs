//! What there is to tell of a body, as much as anybody reads: a body of a few megabytes could have a path in it that is
//! repeated in a hundred thousand findings.

/// Findings that are told at most.
pub(super) const COUNT_MAX: usize = 100;
/// Once they are so long together, no more are told.
const BYTES_MAX: usize = 64 << 10;

/// Whether no more is told, where `most` are.
pub(crate) fn is_full(findings: &[String], most: usize) -> bool {
    findings.len() >= most || findings.iter().map(String::len).sum::<usize>() >= BYTES_MAX
}

/// Adds a finding, which is made only when there is room.
pub(crate) fn tell(findings: &mut Vec<String>, text: impl FnOnce() -> String) {
    if !is_full(findings, COUNT_MAX) {
        findings.push(text());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{any, json};
    use crate::kinds;
    use serde_json::{Value, json};

    #[test]
    fn a_long_path_is_not_repeated_for_each_of_its_faults() {
        let map = kinds::by_resource("", "v1", "configmaps").expect("configmaps");
        let fields: Vec<String> = (0..10_000).map(|n| format!("\"{n}\":0,\"{n}\":0")).collect();
        let twice = format!(r#"{{"{}":{{{}}}}}"#, "x".repeat(1 << 20), fields.join(","));
        let findings = json(twice.as_bytes(), map).expect("decodes").findings;
        assert!(findings.iter().map(String::len).sum::<usize>() < 3 << 20, "{}", findings.len());
        let unknown: serde_json::Map<String, Value> = (0..1000).map(|n| (n.to_string(), json!(0))).collect();
        assert_eq!(
            json(Value::Object(unknown).to_string().as_bytes(), map).expect("decodes").findings.len(),
            100
        );
    }

    #[test]
    fn what_could_not_be_read_again_is_refused() {
        let map = kinds::by_resource("apps", "v1", "controllerrevisions").expect("revisions");
        let nested = |depth: usize| format!(r#"{{"data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(json(nested(99).as_bytes(), map).is_ok());
        assert!(json(nested(100).as_bytes(), map).is_err());
        assert!(super::super::document(nested(100).as_bytes()).is_err());
        assert!(any("[".repeat(100_000).as_bytes()).is_err());
    }
}
