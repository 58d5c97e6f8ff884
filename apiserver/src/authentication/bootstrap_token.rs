//! Bootstrap tokens (`abcdef.0123456789abcdef`), kept in Secrets of kube-system: what a joining node shows first.

use crate::reader::Reader;
use crate::request::UserInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::status::GroupResource;
use coracle_daemon::clock;
use serde_json::Value;
use subtle::ConstantTimeEq;

/// The id and secret of a token of that form.
fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

fn data(secret: &Value, key: &str) -> String {
    let decoded =
        secret["data"][key].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    String::from_utf8(decoded).unwrap_or_default()
}

/// The user of a valid, unexpired token that may be used for authentication.
pub fn user(reader: &dyn Reader, token: &str) -> Option<UserInfo> {
    let (id, given) = parts(token)?;
    let secret =
        reader.get(&GroupResource::new("", "secrets"), "kube-system", &format!("bootstrap-token-{id}"))?;
    let alive = secret["metadata"]["deletionTimestamp"].is_null();
    if secret["type"] != "bootstrap.kubernetes.io/token" || !alive || data(&secret, "token-id") != id {
        return None;
    }
    if !bool::from(data(&secret, "token-secret").as_bytes().ct_eq(given.as_bytes())) {
        return None;
    }
    let expiration = data(&secret, "expiration");
    let expired = !expiration.is_empty()
        && !expiration.parse::<jiff::Timestamp>().is_ok_and(|expires| expires > clock::now());
    if expired || data(&secret, "usage-bootstrap-authentication") != "true" {
        return None;
    }
    let mut groups = vec!["system:bootstrappers".to_owned()];
    let more = data(&secret, "auth-extra-groups");
    for group in more.split(',').map(str::trim).filter(|group| !group.is_empty()) {
        // One bad group spoils the token, as upstream: the token's maker meant something that we cannot grant.
        if !group.starts_with("system:bootstrappers:") {
            return None;
        }
        groups.push(group.to_owned());
    }
    Some(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::fake::Fake;
    use serde_json::json;

    fn secret(change: &[(&str, &str)]) -> Value {
        let mut data = json!({"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:workers"});
        for (key, value) in change {
            data[*key] = json!(value);
        }
        for value in data.as_object_mut().expect("object").values_mut() {
            *value = json!(STANDARD.encode(value.as_str().expect("text")));
        }
        json!({"metadata": {"namespace": "kube-system", "name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "data": data})
    }

    #[test]
    fn only_a_whole_unexpired_token_is_let_in() {
        type Case = (&'static [(&'static str, &'static str)], &'static str, bool);
        let cases: &[Case] = &[
            (&[], "abcdef.0123456789abcdef", true),
            (&[], "abcdef.0123456789abcdeX", false),
            (&[], "abcdef.0123456789abcde0", false),
            (&[("expiration", "2001-01-01T00:00:00Z")], "abcdef.0123456789abcdef", false),
            (&[("expiration", "9001-01-01T00:00:00Z")], "abcdef.0123456789abcdef", true),
            (&[("expiration", "soon")], "abcdef.0123456789abcdef", false),
            (&[("usage-bootstrap-authentication", "false")], "abcdef.0123456789abcdef", false),
            (&[("auth-extra-groups", "system:masters")], "abcdef.0123456789abcdef", false),
        ];
        for (change, token, allowed) in cases {
            let fake = Fake::with([("", "secrets", secret(change))]);
            assert_eq!(user(fake.as_ref(), token).is_some(), *allowed, "{change:?} {token}");
        }
    }
}
