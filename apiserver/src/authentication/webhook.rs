//! Webhook authentication (`--authentication-token-webhook-config-file`): tokens that nobody here knows are shown to another
//! server in a TokenReview.

use super::service_account::Refused;
use super::tokens::{self, Answered, Remembered};
use crate::outbound::remote::Remote;
use crate::request::UserInfo;
use anyhow::{Context, ensure};
use coracle_api::meta;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
/// How long any token that is good is remembered at least.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// Flags, named as kube-apiserver's.
#[derive(Clone, Debug, clap::Args)]
pub struct WebhookArgs {
    /// Kubeconfig of a server that knows tokens.
    #[arg(long)]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of the TokenReviews that it is sent.
    #[arg(long, default_value = "v1beta1")]
    pub authentication_token_webhook_version: String,
    /// How long its answers are remembered, e.g. 2m0s.
    #[arg(long, default_value = "2m0s", value_parser = crate::flags::duration)]
    pub authentication_token_webhook_cache_ttl: Duration,
}

impl Default for WebhookArgs {
    fn default() -> Self {
        Self {
            authentication_token_webhook_config_file: None,
            authentication_token_webhook_version: "v1beta1".to_owned(),
            authentication_token_webhook_cache_ttl: Duration::from_secs(120),
        }
    }
}

/// The other server.
pub struct Webhook {
    remote: Remote,
    version: String,
    remembered: Remembered,
}

impl Webhook {
    /// By the flags; `None` without one.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub fn new(args: &WebhookArgs) -> anyhow::Result<Option<Self>> {
        let Some(path) = &args.authentication_token_webhook_config_file else { return Ok(None) };
        let version = args.authentication_token_webhook_version.clone();
        let known = ["v1", "v1beta1"].contains(&version.as_str());
        ensure!(known, "unsupported webhook authenticator version {version:?}");
        let remote = Remote::from_kubeconfig(path, LIMIT);
        let remote = remote.context("cannot use --authentication-token-webhook-config-file")?;
        let life = args.authentication_token_webhook_cache_ttl;
        Ok(Some(Self { remote, version, remembered: Remembered::new(life.max(GOOD_LIFE), life) }))
    }

    /// The user of a token, and those of `audiences` that it is for. A server that says nothing of audiences means `own`.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn user(
        &self,
        token: &str,
        audiences: &[String],
        own: &[String],
    ) -> Result<(UserInfo, Vec<String>), Refused> {
        self.remembered.or(token, audiences, self.ask(token, audiences, own)).await
    }

    async fn ask(&self, token: &str, audiences: &[String], own: &[String]) -> Result<Answered, Refused> {
        let question = json!({
            "kind": "TokenReview",
            "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": audiences},
            "status": {"user": {}},
        });
        // That it is not reached says nothing of the token.
        let answer = self.remote.ask(&question).await.map_err(|error| Refused::Claims(error.to_string()))?;
        let status = &answer["status"];
        // Nor does that it failed, which may pass.
        let fault = status["error"].as_str().filter(|why| !why.is_empty() && status["authenticated"] != true);
        fault.map_or_else(|| Ok(read(status, audiences, own)), |why| Err(Refused::Claims(why.to_owned())))
    }
}

fn read(status: &Value, audiences: &[String], own: &[String]) -> Answered {
    if status["authenticated"] != true {
        return Err(String::new());
    }
    let told: Vec<String> = meta::strings(&status["audiences"]).map(str::to_owned).collect();
    let told = if told.is_empty() { own } else { &told };
    // Of a token for somebody else it has nothing to say, either.
    let fitting = tokens::fitting(audiences, told).map_err(|_| String::new())?;
    let text = |key: &str| status["user"][key].as_str().unwrap_or_default().to_owned();
    let extra = status["user"]["extra"].as_object().into_iter().flatten();
    let user = UserInfo {
        name: text("username"),
        uid: text("uid"),
        groups: meta::strings(&status["user"]["groups"]).map(str::to_owned).collect(),
        extra: extra
            .map(|(key, values)| (key.clone(), meta::strings(values).map(str::to_owned).collect()))
            .collect(),
    };
    Ok((user, fitting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_user_for_the_audiences_it_names() {
        let own = ["api".to_owned()];
        let both = ["api".to_owned(), "vault".to_owned()];
        let user = json!({"username": "jane", "groups": ["devs"], "extra": {"k": ["v"]}});
        let told = |status: Value, audiences: &[String]| {
            read(&status, audiences, &own).map(|(user, fitting)| (user.name, fitting.len()))
        };
        let yes = |more: Value| {
            let mut status = json!({"authenticated": true, "user": user});
            status["audiences"] = more;
            status
        };
        assert_eq!(told(yes(Value::Null), &both), Ok(("jane".to_owned(), 1)));
        assert_eq!(told(yes(json!(["vault", "api"])), &both), Ok(("jane".to_owned(), 2)));
        for unknown in [yes(json!(["vault"])), json!({"authenticated": false}), json!({})] {
            assert_eq!(told(unknown, &own), Err(String::new()));
        }
    }
}
