//! Who asks, as headers that an aggregated server believes from whoever shows the front proxy's certificate.
//!
//! Invariant: what a caller sends under these names never goes on.

use crate::request::UserInfo;
use coracle_api::status::Status;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The user's name.
pub const USER: &str = "X-Remote-User";
/// The user's uid.
pub const UID: &str = "X-Remote-Uid";
/// Each group.
pub const GROUP: &str = "X-Remote-Group";
/// What stands before the keys of extra attributes.
pub const EXTRA: &str = "X-Remote-Extra-";

fn is_identity(name: &HeaderName) -> bool {
    let name = name.as_str();
    [USER, UID, GROUP].iter().any(|own| name.eq_ignore_ascii_case(own))
        || name.get(..EXTRA.len()).is_some_and(|start| start.eq_ignore_ascii_case(EXTRA))
}

/// A key as it can stand in a header's name: other bytes, and the sign itself, as `%XX`.
fn escaped(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Makes `headers` say that `user` asks, and nobody else.
///
/// # Errors
/// 500 for a name that no header can carry: it is never shortened or left out.
pub fn set(headers: &mut HeaderMap, user: &UserInfo) -> Result<(), Status> {
    let given: Vec<HeaderName> = headers.keys().filter(|name| is_identity(name)).cloned().collect();
    for name in given {
        headers.remove(name);
    }
    let mut add = |name: &str, value: &str| -> Result<(), Status> {
        let unfit = || Status::internal(format!("the user's {name} cannot stand in a header"));
        let name: HeaderName = name.parse().map_err(|_| unfit())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| unfit())?;
        headers.append(name, value);
        Ok(())
    };
    add(USER, &user.name)?;
    if !user.uid.is_empty() {
        add(UID, &user.uid)?;
    }
    for group in &user.groups {
        add(GROUP, group)?;
    }
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", escaped(key));
        for value in values {
            add(&name, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn the_users_attributes_replace_whatever_the_caller_sent() {
        let mut headers = HeaderMap::new();
        for name in ["x-remote-user", "X-Remote-Uid", "x-remote-group", "x-remote-extra-scopes", "accept"] {
            headers.append(name.parse::<HeaderName>().expect("name"), HeaderValue::from_static("forged"));
        }
        let user = UserInfo {
            name: "jané".to_owned(),
            groups: vec!["dev".to_owned(), "system:authenticated".to_owned()],
            extra: BTreeMap::from([("example.org/a%b".to_owned(), vec!["1".to_owned(), "2".to_owned()])]),
            ..UserInfo::default()
        };
        set(&mut headers, &user).expect("set");
        assert_eq!(
            shown(&headers),
            [
                "accept: forged",
                "x-remote-extra-example.org%2fa%25b: 1",
                "x-remote-extra-example.org%2fa%25b: 2",
                "x-remote-group: dev",
                "x-remote-group: system:authenticated",
                "x-remote-user: jané",
            ]
        );
    }

    #[test]
    fn a_name_that_no_header_can_carry_is_refused() {
        let user = UserInfo { name: "a\r\nX-Remote-Group: system:masters".to_owned(), ..UserInfo::default() };
        assert_eq!(set(&mut HeaderMap::new(), &user).expect_err("refused").code, 500);
    }
}
