//! TokenReview and SelfSubjectReview, and the documents from which others verify our tokens (OIDC discovery, JWKS).

use super::Authentication;
use super::service_account::Refused;
use crate::request::UserInfo;
use coracle_api::meta;
use coracle_api::status::Status;
use coracle_daemon::clock;
use serde_json::{Map, Value, json};

/// A user as `authentication.k8s.io/v1` UserInfo; empty fields left out.
#[must_use]
pub fn user_info(user: &UserInfo) -> Value {
    let mut info = Map::new();
    let mut tell = |key: &str, value: Value, empty: bool| {
        if !empty {
            info.insert(key.to_owned(), value);
        }
    };
    tell("username", json!(user.name), user.name.is_empty());
    tell("uid", json!(user.uid), user.uid.is_empty());
    tell("groups", json!(user.groups), user.groups.is_empty());
    tell("extra", json!(user.extra), user.extra.is_empty());
    Value::Object(info)
}

/// Why a token is not accepted: nobody knows it, and who could have may say more.
fn told(error: &Refused) -> String {
    const UNKNOWN: &str = "invalid bearer token";
    match error {
        Refused::Token(_) => UNKNOWN.to_owned(),
        Refused::Claims(why) => format!("[{UNKNOWN}, {why}]"),
        Refused::Store(status) => status.to_string(),
    }
}

/// Whether a TokenReview can be answered.
///
/// # Errors
/// 400 without a token.
pub fn check_review(review: &Value) -> Result<(), Status> {
    let namespace = meta::namespace(review);
    if !namespace.is_empty() {
        return Err(Status::bad_request(format!("namespace is not allowed on this type: {namespace}")));
    }
    if review["spec"]["token"].as_str().is_none_or(str::is_empty) {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    Ok(())
}

impl Authentication {
    /// Answers a TokenReview that was found right.
    pub async fn review_token(&self, mut review: Value) -> Value {
        let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
        let asked: Vec<String> = meta::strings(&review["spec"]["audiences"]).map(str::to_owned).collect();
        let wanted = if asked.is_empty() { &self.audiences } else { &asked };
        review["status"] = match self.bearer(&token, wanted).await {
            Ok((user, audiences)) => {
                json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
            }
            Err(error) => json!({"user": {}, "error": told(&error)}),
        };
        review
    }

    /// Answers a SelfSubjectReview (`kubectl auth whoami`).
    #[must_use]
    pub fn review_self(&self, user: &UserInfo) -> Value {
        json!({
            "kind": "SelfSubjectReview",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"creationTimestamp": clock::rfc3339_seconds(clock::now())},
            "status": {"userInfo": user_info(user)},
        })
    }

    /// `/openid/v1/jwks`, content type `application/jwk-set+json`.
    #[must_use]
    pub fn jwks(&self) -> Value {
        json!({"keys": self.public_keys.iter().map(|key| key.jwk().clone()).collect::<Vec<_>>()})
    }

    /// `/.well-known/openid-configuration`; `external` is this server's address as clients know it (`host:port`).
    #[must_use]
    pub fn openid_configuration(&self, external: &str) -> Value {
        let mut algorithms: Vec<_> = self.public_keys.iter().map(|key| key.algorithm()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        json!({
            "issuer": self.issuer,
            "jwks_uri": match self.jwks_uri.as_str() {
                "" => format!("https://{external}/openid/v1/jwks"),
                elsewhere => elsewhere.to_owned(),
            },
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }
}
