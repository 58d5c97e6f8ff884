//! Secrets of type kubernetes.io/service-account-token: each gets a token of the ServiceAccount that it names, the cluster's
//! CA and its namespace, and goes with the account.
//!
//! In: such Secrets and the accounts. Out: their data, and deletions. Such a token is good as long as its Secret stays.

use crate::context::Context;
use crate::plan::{Action, Deletion, Plan, SECRET, SERVICE_ACCOUNT};
use crate::stores::{ACCOUNT_NAME, BY_ACCOUNT};
use coracle_client::controller::{Next, ReconcileError};
use coracle_client::{Key, Queue, errors};
use coracle_keys::SigningKey;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};
use std::sync::Arc;

const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const ISSUER: &str = "kubernetes/serviceaccount";

/// Without a key no tokens are made, but Secrets still go with their accounts.
pub fn start(ctx: &Context, key: Option<Arc<SigningKey>>, root_ca: Option<Arc<str>>) {
    let queue = Queue::new();
    let wake = queue.clone();
    ctx.stores.tokens.on_change(move |change| wake.add(change.key.clone()));
    let (wake, tokens) = (queue.clone(), ctx.stores.tokens.clone());
    ctx.stores.service_accounts.on_change(move |change| {
        for secret in tokens.by_index(BY_ACCOUNT, &format!("{}/{}", change.key.namespace, change.key.name)) {
            wake.add(Key::of(&secret.metadata));
        }
    });
    ctx.control("service account tokens", queue, 4, move |ctx, secret| {
        let (key, root_ca) = (key.clone(), root_ca.clone());
        async move { reconcile(&ctx, &secret, key.as_deref(), root_ca.as_deref()).await }
    });
}

async fn reconcile(
    ctx: &Context,
    key: &Key,
    signing: Option<&SigningKey>,
    root_ca: Option<&str>,
) -> Result<Next, ReconcileError> {
    let Some(secret) = ctx.stores.tokens.get(key) else { return Ok(Next::Change) };
    let annotation = |name: &str| secret.metadata.annotations.iter().find_map(|all| all.get(name)).cloned();
    let Some(name) = annotation(ACCOUNT_NAME) else { return Ok(Next::Change) };
    if secret.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Change);
    }
    // The cache may not have seen an account that is younger than its Secret.
    let account = match ctx.stores.service_accounts.get(&Key::new(&*key.namespace, &*name)) {
        Some(account) => account.metadata.uid.clone(),
        None => {
            let api = SERVICE_ACCOUNT.api(&ctx.client, &key.namespace);
            let found = api.get_opt(&name).await?;
            found.and_then(|account| account.metadata.uid)
        }
    };
    let named = annotation(ACCOUNT_UID).filter(|uid| !uid.is_empty());
    let Some(uid) = account.filter(|uid| named.as_ref().is_none_or(|named| named == uid)) else {
        let mut plan = Plan::default();
        plan.then([Action::Delete {
            resource: &SECRET,
            key: key.clone(),
            uid: secret.metadata.uid.clone(),
            how: Deletion::default(),
            owner: None,
        }]);
        return ctx.execute(plan, None).await;
    };
    let Some(signing) = signing else { return Ok(Next::Change) };
    let Some(wanted) = wanted(&secret, &name, &uid, signing, root_ca) else { return Ok(Next::Change) };
    write(ctx, key, &secret, &wanted).await
}

/// The data and annotation that a Secret lacks; `None` when it lacks nothing.
fn wanted(
    secret: &Secret,
    account: &str,
    uid: &str,
    signing: &SigningKey,
    root_ca: Option<&str>,
) -> Option<Value> {
    let has = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let mut data = serde_json::Map::new();
    let mut set = |key: &str, value: &str| {
        data.insert(key.to_owned(), json!(ByteString(value.as_bytes().to_vec())));
    };
    if let Some(root_ca) = root_ca.filter(|root_ca| has("ca.crt") != Some(root_ca.as_bytes())) {
        set("ca.crt", root_ca);
    }
    if has("namespace").is_none_or(<[u8]>::is_empty) {
        set("namespace", namespace);
    }
    if has("token").is_none_or(<[u8]>::is_empty) {
        let prefix = "kubernetes.io/serviceaccount";
        let claims = json!({
            "iss": ISSUER,
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            format!("{prefix}/namespace"): namespace,
            format!("{prefix}/secret.name"): name,
            format!("{prefix}/service-account.name"): account,
            format!("{prefix}/service-account.uid"): uid,
        });
        match signing.token(&claims) {
            Ok(token) => set("token", &token),
            Err(_) => tracing::error!("the system has no randomness to sign with"),
        }
    }
    let annotated =
        secret.metadata.annotations.iter().any(|all| all.get(ACCOUNT_UID).is_some_and(|own| own == uid));
    (!data.is_empty() || !annotated)
        .then(|| json!({"data": data, "metadata": {"annotations": {ACCOUNT_UID: uid}}}))
}

/// Brings what is wanted into the Secret as it was seen. The controller manager's role updates and does not patch.
async fn write(ctx: &Context, key: &Key, seen: &Secret, wanted: &Value) -> Result<Next, ReconcileError> {
    let api = SECRET.api(&ctx.client, &key.namespace);
    let Some(mut object) = api.get_opt(&key.name).await? else { return Ok(Next::Change) };
    if object.metadata.uid != seen.metadata.uid
        || object.metadata.resource_version != seen.metadata.resource_version
    {
        // The change that made it so comes to the cache too.
        return Ok(Next::Change);
    }
    let uid = wanted["metadata"]["annotations"][ACCOUNT_UID].as_str().unwrap_or_default().to_owned();
    object.metadata.annotations.get_or_insert_default().insert(ACCOUNT_UID.to_owned(), uid);
    if !object.data["data"].is_object() {
        object.data["data"] = json!({});
    }
    for (name, value) in wanted["data"].as_object().into_iter().flatten() {
        object.data["data"][name] = value.clone();
    }
    let written: kube::Result<DynamicObject> = api.replace(&key.name, &PostParams::default(), &object).await;
    match written {
        Err(error) if errors::is_not_found(&error) || errors::is_conflict(&error) => Ok(Next::Change),
        written => Ok(written.map(|_| Next::Change)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;
    use std::io::Write;

    fn signing() -> SigningKey {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        let key = rcgen::KeyPair::generate().expect("key").serialize_pem();
        file.write_all(key.as_bytes()).expect("written");
        SigningKey::from_file(file.path()).expect("key")
    }

    #[test]
    fn a_new_secret_gets_everything_and_a_complete_one_nothing() {
        let key = signing();
        let mut secret: Secret = object(json!({"metadata": {"name": "s", "namespace": "n"}}));
        let told = wanted(&secret, "robot", "u1", &key, Some("PEM")).expect("something");
        let names: Vec<&String> = told["data"].as_object().expect("data").keys().collect();
        assert_eq!(names, ["ca.crt", "namespace", "token"]);
        secret.data = Some(serde_json::from_value(told["data"].clone()).expect("data"));
        assert_eq!(wanted(&secret, "robot", "u1", &key, Some("PEM")).expect("the uid")["data"], json!({}));
        secret.metadata.annotations = Some([(ACCOUNT_UID.to_owned(), "u1".to_owned())].into());
        assert_eq!(wanted(&secret, "robot", "u1", &key, Some("PEM")), None);
        let turned = wanted(&secret, "robot", "u1", &key, Some("OTHER")).expect("the CA");
        assert_eq!(turned["data"].as_object().map(serde_json::Map::len), Some(1));
    }
}
