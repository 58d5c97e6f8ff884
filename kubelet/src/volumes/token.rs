//! ServiceAccount tokens for pods: asked for once, asked for anew when four fifths of their life are over.

use super::content::TokenKey;
use coracle_daemon::clock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::TokenRequestStatus;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use std::collections::BTreeMap;

/// A token with the time at which to ask for its successor.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token.
    pub value: String,
    /// When to ask for another.
    pub refresh_at: Timestamp,
}

/// Tokens of one pod.
pub type Tokens = BTreeMap<TokenKey, Token>;

/// Asks for those of `wanted` that are missing or old.
///
/// # Errors
/// The apiserver refuses. Tokens that are still good stay.
pub async fn refresh(
    client: &kube::Client,
    pod: &Pod,
    wanted: &[TokenKey],
    tokens: &mut Tokens,
) -> Result<(), kube::Error> {
    tokens.retain(|key, _| wanted.contains(key));
    for key in wanted {
        if tokens.get(key).is_some_and(|token| clock::now() < token.refresh_at) {
            continue;
        }
        let token = ask(client, pod, key).await?;
        tokens.insert(key.clone(), token);
    }
    Ok(())
}

/// What counts of a TokenRequest that was answered.
#[derive(serde::Deserialize)]
struct Issued {
    status: TokenRequestStatus,
}

async fn ask(client: &kube::Client, pod: &Pod, key: &TokenKey) -> Result<Token, kube::Error> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let account =
        pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let audiences: Vec<&str> =
        Some(key.audience.as_str()).filter(|name| !name.is_empty()).into_iter().collect();
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": audiences, "expirationSeconds": key.seconds,
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": text(&pod.metadata.name), "uid": text(&pod.metadata.uid),
            },
        },
    });
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &text(&pod.metadata.namespace));
    let asked = clock::now();
    let answer: Issued = api.create_subresource("token", account, &PostParams::default(), &request).await?;
    let TokenRequestStatus { token, expiration_timestamp } = answer.status;
    Ok(Token { value: token, refresh_at: refresh_at(asked, expiration_timestamp.0) })
}

/// After four fifths of its life, and after a day at the latest.
fn refresh_at(asked: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.duration_since(asked);
    let wait = (life * 4 / 5).clamp(SignedDuration::from_secs(1), SignedDuration::from_hours(24));
    asked.checked_add(wait).unwrap_or(expires)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_after_four_fifths_of_their_life() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(refresh_at(at(0), at(3600)), at(2880));
        assert_eq!(refresh_at(at(0), at(31_536_000)), at(86_400));
        assert_eq!(refresh_at(at(100), at(50)), at(101), "a clock that jumps makes no tight loop");
    }
}
