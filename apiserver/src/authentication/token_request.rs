//! TokenRequest: issues ServiceAccount tokens.

use super::jwt::{Bound, Claims, Reference};
use super::{Authentication, AuthenticationArgs};
use crate::audit;
use coracle_api::meta;
use coracle_api::status::{FieldError, GroupResource, Status};
use coracle_daemon::{clock, random};
use serde_json::{Value, json};

const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;
const SECONDS_DEFAULT: i64 = 3600;
/// What the projected volume of every pod asks for. Such a token really lives for a year, since old clients never
/// read the file again, and `warnafter` tells who they are.
const SECONDS_OF_PROJECTED_VOLUME: i64 = 3607;
const SECONDS_EXTENDED: i64 = 365 * 24 * 3600;

/// How long tokens are good.
pub(super) struct Lives {
    /// At most; 0: as long as they are asked for.
    seconds_max: i64,
    /// Those of pods' volumes for a year.
    extended: bool,
}

impl Lives {
    /// By the flags.
    pub fn new(args: &AuthenticationArgs) -> anyhow::Result<Self> {
        let most = args.service_account_max_token_expiration.as_secs();
        let seconds_max = i64::try_from(most).unwrap_or(i64::MAX);
        let fits = seconds_max == 0 || (SECONDS_DEFAULT..=SECONDS_MAX).contains(&seconds_max);
        anyhow::ensure!(
            fits,
            "the service-account-max-token-expiration must be between 1 hour and 2^32 seconds"
        );
        Ok(Self { seconds_max, extended: args.service_account_extend_token_expiration })
    }
}

impl Authentication {
    /// Answers `serviceaccounts/NAME/token`: the TokenRequest with its `status` filled, and what there is to warn of.
    ///
    /// # Errors
    /// 404 for the ServiceAccount or the bound object, 422 for a bad duration, 409 for another uid, 400 for another kind.
    pub async fn issue(
        &self,
        namespace: &str,
        name: &str,
        request: &Value,
    ) -> Result<(Value, Option<String>), Status> {
        let key = self.signing.as_ref().ok_or_else(Status::no_such_resource)?;
        for (given, wanted, what) in
            [(meta::name(request), name, "name"), (meta::namespace(request), namespace, "namespace")]
        {
            if !given.is_empty() && given != wanted {
                let why = format!("must match the service account {what} if specified");
                let fault = FieldError::invalid(format!("metadata.{what}"), &json!(given), why);
                return Err(Status::invalid(&of_request(), name, &[fault]));
            }
        }
        let account = self.must_get("serviceaccounts", namespace, name).await?;
        let asked_for = duration(&request["spec"])?;
        let most = self.lives.seconds_max;
        let seconds = if most > 0 { asked_for.min(most) } else { asked_for };
        let warning = (seconds < asked_for)
            .then(|| format!("requested expiration of {asked_for} seconds shortened to {seconds} seconds"));
        check_uid(meta::uid(request), &account, &GroupResource::new("", "serviceaccounts"), name)?;
        let mut bound = Bound {
            namespace: namespace.to_owned(),
            serviceaccount: Reference { name: name.to_owned(), uid: meta::uid(&account).to_owned() },
            ..Bound::default()
        };
        let object = &request["spec"]["boundObjectRef"];
        if object.is_object() {
            self.bind(&mut bound, object).await?;
        }
        let asked: Vec<String> = meta::strings(&request["spec"]["audiences"]).map(str::to_owned).collect();
        let audiences = if asked.is_empty() { self.audiences.clone() } else { asked };
        let now = clock::now();
        let mut exp = now.as_second() + seconds;
        let told = exp;
        let extended = self.lives.extended && bound.pod.is_some();
        if extended && seconds == SECONDS_OF_PROJECTED_VOLUME && audiences == self.audiences {
            bound.warnafter = Some(exp);
            exp = now.as_second() + SECONDS_EXTENDED;
        }
        let claims = Claims {
            aud: audiences.clone(),
            exp,
            iat: now.as_second(),
            iss: self.issuer.clone(),
            jti: random::uuid(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            nbf: now.as_second(),
            bound,
        };
        audit::annotate("authentication.kubernetes.io/issued-credential-id", || {
            format!("JTI={}", claims.jti)
        });
        let token = key.token(&claims).map_err(|_| Status::internal("cannot sign the token"))?;
        let told = jiff::Timestamp::from_second(told).unwrap_or(jiff::Timestamp::MAX);
        let mut answer = request.clone();
        answer["apiVersion"] = json!("authentication.k8s.io/v1");
        answer["kind"] = json!("TokenRequest");
        meta::set(&mut answer, "name", name);
        meta::set(&mut answer, "namespace", namespace);
        meta::set(&mut answer, "creationTimestamp", clock::rfc3339_seconds(now));
        answer["spec"] =
            json!({"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": object});
        answer["status"] = json!({"token": token, "expirationTimestamp": clock::rfc3339_seconds(told)});
        Ok((answer, warning))
    }

    /// Says in a request for a token of an account what it leaves to be understood, as admission sees it.
    ///
    /// # Errors
    /// 404 for the ServiceAccount.
    pub async fn complete(&self, namespace: &str, name: &str, request: &mut Value) -> Result<(), Status> {
        self.must_get("serviceaccounts", namespace, name).await?;
        for (key, value) in [("name", name), ("namespace", namespace)] {
            if meta::field(request, key).is_empty() {
                meta::set(request, key, value);
            }
        }
        meta::set(request, "creationTimestamp", clock::rfc3339_seconds(clock::now()));
        if request["spec"]["audiences"].as_array().is_none_or(Vec::is_empty) {
            request["spec"]["audiences"] = json!(self.audiences);
        }
        Ok(())
    }

    async fn bind(&self, bound: &mut Bound, wanted: &Value) -> Result<(), Status> {
        let text = |key: &str| wanted[key].as_str().unwrap_or_default();
        let (version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
        // Of any version, as long as it is of no group.
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let (plural, namespace) = match (group, kind) {
            ("", "Pod") => ("pods", bound.namespace.as_str()),
            ("", "Secret") => ("secrets", bound.namespace.as_str()),
            ("", "Node") => ("nodes", ""),
            _ => {
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {group}/{version}, Kind={kind}"
                )));
            }
        };
        if name.is_empty() {
            return Err(Status::bad_request("Name parameter required."));
        }
        let object = self.must_get(plural, namespace, name).await?;
        let runs_as = object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        if plural == "pods" && runs_as != bound.serviceaccount.name {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                bound.serviceaccount.name
            )));
        }
        check_uid(text("uid"), &object, &GroupResource::new("", kind), name)?;
        let reference = Reference { name: name.to_owned(), uid: meta::uid(&object).to_owned() };
        match plural {
            "pods" => {
                if let Some(node) = object["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
                    let found = self.reader.get(&GroupResource::new("", "nodes"), "", node);
                    let uid = found.map(|node| meta::uid(&node).to_owned()).unwrap_or_default();
                    bound.node = Some(Reference { name: node.to_owned(), uid });
                }
                bound.pod = Some(reference);
            }
            "secrets" => bound.secret = Some(reference),
            _ => bound.node = Some(reference),
        }
        Ok(())
    }

    async fn must_get(&self, plural: &str, namespace: &str, name: &str) -> Result<Value, Status> {
        let of = GroupResource::new("", plural);
        if let Some(object) = self.reader.get(&of, namespace, name) {
            return Ok(object.as_ref().clone());
        }
        self.objects.get_fresh(&of, namespace, name).await?.ok_or_else(|| Status::not_found(&of, name))
    }
}

fn of_request() -> GroupResource {
    GroupResource::new("authentication.k8s.io", "TokenRequest")
}

fn check_uid(wanted: &str, object: &Value, of: &GroupResource, name: &str) -> Result<(), Status> {
    if wanted.is_empty() || wanted == meta::uid(object) {
        return Ok(());
    }
    let cause = format!(
        "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
    );
    Err(Status::conflict(of, name, &cause))
}

fn duration(spec: &Value) -> Result<i64, Status> {
    let seconds = &spec["expirationSeconds"];
    let why = match seconds.as_i64() {
        None => return Ok(SECONDS_DEFAULT),
        Some(given) if given < SECONDS_MIN => "may not specify a duration less than 10 minutes",
        Some(given) if given > SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
        Some(given) => return Ok(given),
    };
    Err(Status::invalid(&of_request(), "", &[FieldError::invalid("spec.expirationSeconds", seconds, why)]))
}
