//! JSON as Go writes it.

use serde_json::Value;

/// Sorted keys, and texts that are fit for HTML.
#[must_use]
pub fn as_go(value: &Value) -> String {
    let mut text = value.to_string();
    for (plain, escaped) in [
        ('&', "\\u0026"),
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ] {
        if text.contains(plain) {
            text = text.replace(plain, escaped);
        }
    }
    text
}
