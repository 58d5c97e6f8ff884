//! Exceptions from the rules, all of them, each with its reason. One that nothing needs any more is a finding itself.

use super::Finding;

/// A rule that a file need not keep.
pub struct Allowed {
    /// The rule's name.
    pub rule: &'static str,
    /// The file.
    pub path: &'static str,
    /// Why it is better so.
    pub reason: &'static str,
}

/// The exceptions.
pub const ALLOWED: &[Allowed] = &[
    Allowed {
        rule: "seam",
        path: "libs/etcd/src/client.rs",
        reason: "a protocol library stands on no other crate of ours; its one pause is between two tries of all members",
    },
    Allowed {
        rule: "circle",
        path: "libs/api/src",
        reason: "a custom kind is a Kind and carries what its definition says, which is read as objects of a Kind are",
    },
    Allowed {
        rule: "ignored-test",
        path: "kubelet/tests/containerd/main.rs",
        reason: "the other test runs it, in namespaces of its own",
    },
];

/// Findings less what is allowed, plus exceptions without use.
pub fn sift(mut findings: Vec<Finding>, allowed: &[Allowed]) -> Vec<Finding> {
    let mut unused = Vec::new();
    for exception in allowed {
        let before = findings.len();
        findings.retain(|finding| finding.rule != exception.rule || finding.path != exception.path);
        if findings.len() == before || exception.reason.is_empty() {
            unused.push(Finding {
                path: "xtask/src/tidy/allowed.rs".to_owned(),
                line: 1,
                rule: "exception",
                instead: format!(
                    "nothing needs the exception from {} for {}, or it has no reason: take it out",
                    exception.rule, exception.path
                ),
            });
        }
    }
    findings.extend(unused);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(rule: &'static str, path: &str) -> Finding {
        Finding { path: path.to_owned(), line: 1, rule, instead: String::new() }
    }

    #[test]
    fn an_exception_silences_its_rule_in_its_file_alone() {
        let allowed = [Allowed { rule: "file-length", path: "a.rs", reason: "one table" }];
        let left = sift(vec![finding("file-length", "a.rs"), finding("file-length", "b.rs")], &allowed);
        assert_eq!(left, [finding("file-length", "b.rs")]);
    }

    #[test]
    fn an_exception_that_nothing_needs_is_a_finding() {
        let left = sift(Vec::new(), &[Allowed { rule: "file-length", path: "a.rs", reason: "one table" }]);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].rule, "exception");
    }
}
