//! Tokens in Secrets of type kubernetes.io/service-account-token: good as long as their Secret holds them, without an end.

use super::service_account::Refused;
use crate::reader::{Objects, Reader, SERVER};
use crate::request::UserInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::meta;
use coracle_api::status::GroupResource;
use coracle_daemon::clock;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Who issues them.
pub const ISSUER: &str = "kubernetes/serviceaccount";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// All claims of such a token.
#[derive(Clone, Debug, Deserialize)]
pub struct Claims {
    sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
}

fn refused(why: impl Into<String>) -> Refused {
    Refused::Claims(why.into())
}

impl Claims {
    /// The user, when Secret and account still are what they were.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn user(
        &self,
        token: &str,
        reader: &Arc<dyn Reader>,
        objects: &Arc<dyn Objects>,
    ) -> Result<UserInfo, Refused> {
        let name = format!("system:serviceaccount:{}:{}", self.namespace, self.account);
        if self.sub != name || self.secret.is_empty() || self.uid.is_empty() {
            return Err(refused("the token's subject is not its service account"));
        }
        let secrets = GroupResource::new("", "secrets");
        let holds = |secret: &Value| {
            let kept = secret["data"]["token"].as_str().and_then(|text| STANDARD.decode(text).ok());
            secret["metadata"]["deletionTimestamp"].is_null()
                && kept.is_some_and(|kept| bool::from(kept.ct_eq(token.as_bytes())))
        };
        let cached = reader.get(&secrets, &self.namespace, &self.secret).filter(|secret| holds(secret));
        let secret = match cached {
            Some(secret) => secret,
            None => {
                let fresh = objects.get_fresh(&secrets, &self.namespace, &self.secret).await?;
                let fresh = fresh.filter(holds).map(Arc::new);
                fresh.ok_or_else(|| refused("service account token has been invalidated"))?
            }
        };
        let accounts = GroupResource::new("", "serviceaccounts");
        let lives = |account: &Value| {
            meta::uid(account) == self.uid && account["metadata"]["deletionTimestamp"].is_null()
        };
        if !reader.get(&accounts, &self.namespace, &self.account).is_some_and(|account| lives(&account)) {
            let fresh = objects.get_fresh(&accounts, &self.namespace, &self.account).await?;
            if !fresh.is_some_and(|account| lives(&account)) {
                let (namespace, account) = (&self.namespace, &self.account);
                return Err(refused(format!("service account {namespace}/{account} has been deleted")));
            }
        }
        if secret["metadata"]["labels"][INVALID_SINCE].is_string() {
            return Err(refused(format!(
                "the token in secret {}/{} for service account {}/{} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
                self.namespace, self.secret, self.namespace, self.account
            )));
        }
        self.used(&secret, objects).await;
        Ok(UserInfo {
            name,
            uid: self.uid.clone(),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{}", self.namespace),
            ],
            ..UserInfo::default()
        })
    }

    /// Notes the day on the Secret, once a day.
    async fn used(&self, secret: &Value, objects: &Arc<dyn Objects>) {
        let today = clock::now().strftime("%Y-%m-%d").to_string();
        if secret["metadata"]["labels"][LAST_USED] == today {
            return;
        }
        let note = |secret: &Value| {
            let mut secret = secret.clone();
            secret["metadata"]["labels"][LAST_USED] = json!(today);
            Some(secret)
        };
        let of = GroupResource::new("", "secrets");
        if let Err(status) = objects.modify(&of, &self.namespace, &self.secret, SERVER, &note).await {
            tracing::warn!(by = SERVER, error = status.message, "cannot note that a token was used");
        }
    }
}
