//! The syntax of names, label keys and values, and its error texts (apimachinery `util/validation`).
//!
//! Every function takes a text and returns what is wrong with it, in Kubernetes' words; nothing when it is fine. None
//! of them allocates for a text that is fine.

mod rules;

pub use rules::*;

/// Longest DNS label.
pub const DNS_LABEL_MAX: usize = 63;
/// Longest DNS subdomain.
pub const DNS_SUBDOMAIN_MAX: usize = 253;

/// `must be no more than N characters`.
#[must_use]
pub fn max_length_text(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// A sentence, its examples and the regular expression, as Kubernetes joins them.
#[must_use]
pub fn regex_text(sentence: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{sentence} (regex used for validation is '{regex}')");
    }
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{sentence} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn label_shape(text: &str) -> bool {
    framed(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), |byte| byte == b'-')
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`
fn name_shape(text: &str) -> bool {
    framed(text, |byte| byte.is_ascii_alphanumeric(), |byte| matches!(byte, b'-' | b'_' | b'.'))
}

fn subdomain_shape(text: &str) -> bool {
    text.split('.').all(label_shape)
}

/// Not empty, edged by `edge` bytes, with `edge` or `middle` bytes between.
fn framed(text: &str, edge: impl Fn(u8) -> bool, middle: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    edge(*first) && edge(*last) && bytes.iter().all(|byte| edge(*byte) || middle(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_texts() {
        type Rule = fn(&str) -> Vec<String>;
        let rows: [(&str, Rule, &[&str], &[&str]); 11] = [
            ("label", is_dns1123_label, &["a", "a-b", "0"], &["", "A", "-a", "a-", "a.b", "a_b"]),
            ("subdomain", is_dns1123_subdomain, &["a", "a.b", "0-1.c"], &["", "a..b", ".a", "a.", "A.b"]),
            ("1035", is_dns1035_label, &["a", "a1", "a-b"], &["", "1a", "-a", "A"]),
            (
                "name",
                is_qualified_name,
                &["a", "A.b_c-d", "x.y/Z"],
                &["", "a/", "/a", "a/b/c", "-a", "a b", "X/y"],
            ),
            ("value", is_valid_label_value, &["", "a", "A.b_c-d"], &["-", "a/b", "a b"]),
            ("wildcard", is_wildcard_dns1123_subdomain, &["*.a.b"], &["a.b", "*", "*.", "*.A"]),
            ("port", is_valid_port_name, &["a", "http-1"], &["", "1", "-a", "a--b", "sixteen-letters-", "A"]),
            ("c", is_c_identifier, &["_a", "A1"], &["", "1a", "a-b"]),
            ("key", is_config_map_key, &["a", ".a", "A_b-c.d"], &["", ".", "..", "..a", "a/b", "a b"]),
            ("header", is_http_header_name, &["X-Y"], &["", "X Y", "X_Y"]),
            ("env", is_env_var_name, &["a b", "1"], &["", "a=b", "\u{e4}"]),
        ];
        for (rule, check, good, bad) in rows {
            for text in good {
                assert_eq!(check(text), Vec::<String>::new(), "{rule}: {text:?}");
            }
            for text in bad {
                assert!(!check(text).is_empty(), "{rule}: {text:?}");
            }
        }
        assert_eq!(is_dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
    }

    #[test]
    fn texts() {
        assert_eq!(
            is_qualified_name("a/-b"),
            [
                "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
              alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
              '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            ]
        );
        assert_eq!(is_qualified_name("/b"), ["prefix part must be non-empty"]);
        assert_eq!(is_valid_port_number(0), ["must be between 1 and 65535, inclusive"]);
    }
}
