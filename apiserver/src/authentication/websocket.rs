//! Bearer tokens of browsers, whose WebSockets carry no `Authorization`: the token is one of the subprotocols that they offer.

use crate::request::{asks_for_websocket, listed};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, HeaderValue};

/// What stands before a token, which is base64 for URLs without padding.
const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// The token; `None` without one.
///
/// # Errors
/// It is no text in base64, or there are several, or no other subprotocol is offered.
pub(super) fn token(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    if !asks_for_websocket(headers) {
        return Ok(None);
    }
    let (tokens, others): (Vec<&str>, Vec<&str>) =
        listed(headers, &SEC_WEBSOCKET_PROTOCOL).partition(|protocol| protocol.starts_with(PREFIX));
    let [token] = tokens[..] else {
        return if tokens.is_empty() {
            Ok(None)
        } else {
            Err("multiple base64.bearer.authorization tokens specified")
        };
    };
    let decoded = URL_SAFE_NO_PAD
        .decode(&token[PREFIX.len()..])
        .map_err(|_| "invalid base64.bearer.authorization token encoding")?;
    let text = String::from_utf8(decoded).map_err(|_| "invalid base64.bearer.authorization token")?;
    if others.is_empty() && !text.is_empty() {
        return Err("missing additional subprotocol");
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// Leaves of the subprotocols those that are none of ours: a token goes no further.
pub fn without_token(headers: &mut HeaderMap) {
    if !listed(headers, &SEC_WEBSOCKET_PROTOCOL).any(|protocol| protocol.starts_with(PREFIX)) {
        return;
    }
    let others: Vec<&str> =
        listed(headers, &SEC_WEBSOCKET_PROTOCOL).filter(|protocol| !protocol.starts_with(PREFIX)).collect();
    let others = HeaderValue::try_from(others.join(","));
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Some(others) = others.ok().filter(|others| !others.is_empty()) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offering(protocols: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-protocol", protocols),
        ] {
            headers.insert(name, HeaderValue::try_from(value).expect("value"));
        }
        headers
    }

    #[test]
    fn a_token_is_one_of_several_subprotocols_and_goes_no_further() {
        let token_of = |text: &str| token(&offering(text));
        let secret = format!("{PREFIX}c2VjcmV0");
        for (protocols, want, left) in [
            ("base64.binary.k8s.io".to_owned(), Ok(None), "base64.binary.k8s.io"),
            (
                format!("{secret}, base64.binary.k8s.io"),
                Ok(Some("secret".to_owned())),
                "base64.binary.k8s.io",
            ),
            (format!("a,{secret},b"), Ok(Some("secret".to_owned())), "a,b"),
            (secret.clone(), Err("missing additional subprotocol"), ""),
            (
                format!("{secret},{secret},a"),
                Err("multiple base64.bearer.authorization tokens specified"),
                "a",
            ),
            (format!("{PREFIX}?,a"), Err("invalid base64.bearer.authorization token encoding"), "a"),
            (format!("{PREFIX}_w,a"), Err("invalid base64.bearer.authorization token"), "a"),
            (format!("{PREFIX},a"), Ok(None), "a"),
        ] {
            assert_eq!(token_of(&protocols), want, "{protocols}");
            let mut headers = offering(&protocols);
            without_token(&mut headers);
            let rest = headers.get(SEC_WEBSOCKET_PROTOCOL).map_or("", |rest| rest.to_str().expect("text"));
            assert_eq!(rest, left);
        }
        let mut plain = offering(&format!("{secret},a"));
        plain.remove("upgrade");
        assert_eq!(token(&plain), Ok(None));
    }
}
