//! AdmissionReview: the question in, the answer out. Pure.

use super::super::Attributes;
use super::super::select::{self, Target};
use coracle_api::meta;
use coracle_api::status::Status;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The group of AdmissionReview, and the versions of it that this server speaks.
const GROUP: &str = "admission.k8s.io";
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// What a webhook has said.
#[derive(Debug, Default)]
pub struct Answer {
    pub allowed: bool,
    /// The Status that refuses, as sent.
    pub status: Value,
    pub warnings: Vec<String>,
    /// For the audit log.
    pub annotations: BTreeMap<String, String>,
    /// JSON patch, decoded.
    pub patch: Vec<u8>,
    pub patch_type: String,
}

/// The version to speak with a webhook: the first of its own that is known here.
pub fn version(hook: &Value) -> Option<&'static str> {
    meta::strings(&hook["admissionReviewVersions"])
        .find_map(|own| VERSIONS.into_iter().find(|known| *known == own))
}

fn group_version_kind(object: &Value, attributes: &Attributes<'_>, target: &Target) -> Value {
    let row = attributes.request.kind.as_ref();
    let told =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let own = object["apiVersion"].as_str().zip(object["kind"].as_str());
    match (own, row) {
        (Some((version, kind)), _) => {
            let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
            told(group, version, kind)
        }
        (None, Some(row)) => told(&target.group, &target.version, &row.kind),
        (None, None) => told(&target.group, &target.version, ""),
    }
}

/// `AdmissionRequest`; also what CEL knows as `request`, but for the objects in it.
pub fn request(attributes: &Attributes<'_>, object: &Value, target: &Target) -> Value {
    let request = attributes.request;
    let shown = if object.is_object() { object } else { attributes.old.unwrap_or(&Value::Null) };
    let converted = select::converted(target, attributes, shown);
    let own = Target { group: request.group.clone(), version: request.version.clone(), other: None };
    let resource = |target: &Target| json!({"group": target.group, "version": target.version, "resource": request.resource});
    let name = attributes.name(object);
    let mut options = attributes.options.clone();
    // Whoever patches is shown as what the patch does.
    let shown_as = match attributes.operation {
        "CREATE" => Some("CreateOptions"),
        "UPDATE" => Some("UpdateOptions"),
        _ => None,
    };
    if let Some(kind) = shown_as.filter(|_| options.is_object()) {
        options["kind"] = json!(kind);
    }
    let mut out = json!({
        "kind": group_version_kind(&converted, attributes, target),
        "resource": resource(target),
        "requestKind": group_version_kind(shown, attributes, &own),
        "requestResource": resource(&own),
        "operation": attributes.operation,
        "userInfo": Value::Object(attributes.user.fields()),
        "dryRun": attributes.dry_run,
        "options": options,
    });
    for (key, value) in [
        ("name", name),
        ("namespace", &request.namespace),
        ("subResource", &request.subresource),
        ("requestSubResource", &request.subresource),
    ] {
        if !value.is_empty() {
            out[key] = json!(value);
        }
    }
    out
}

/// The whole question.
pub fn question(
    version: &str,
    uid: &str,
    attributes: &Attributes<'_>,
    object: &Value,
    target: &Target,
) -> Value {
    let mut request = request(attributes, object, target);
    request["uid"] = json!(uid);
    request["object"] = select::converted(target, attributes, object).into_owned();
    let old = attributes.old.unwrap_or(&Value::Null);
    request["oldObject"] = select::converted(target, attributes, old).into_owned();
    json!({"kind": "AdmissionReview", "apiVersion": format!("{GROUP}/{version}"), "request": request})
}

/// Whether a reply is of the kind that was sent, or tells none.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub fn of_kind(reply: &Value, group: &str, version: &str, kind: &str) -> Result<(), String> {
    let text = |key: &str| reply[key].as_str().unwrap_or_default();
    let (api, own) = (text("apiVersion"), text("kind"));
    if api.is_empty() || own.is_empty() || (own == kind && api == format!("{group}/{version}")) {
        return Ok(());
    }
    let other = api.strip_prefix(group).and_then(|rest| rest.strip_prefix('/'));
    Err(match other.filter(|other| VERSIONS.contains(other) && own == kind) {
        Some(other) => format!("converting ({other}.{kind}) to ({version}.{kind}): unknown conversion"),
        None => format!(
            "no kind {own:?} is registered for version {api:?} in scheme \"pkg/runtime/scheme.go:110\""
        ),
    })
}

/// Whether a reply can be read as a review of the version that was sent: of its kind, with fields of its types.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub fn decoded(version: &str, review: &Value) -> Result<(), String> {
    of_kind(review, GROUP, version, "AdmissionReview")?;
    let (response, status) = (&review["response"], &review["response"]["status"]);
    let rows = [
        ("AdmissionReview.response", response, "v1.AdmissionResponse", response.is_object()),
        ("AdmissionResponse.response.uid", &response["uid"], "types.UID", response["uid"].is_string()),
        (
            "AdmissionResponse.response.allowed",
            &response["allowed"],
            "bool",
            response["allowed"].is_boolean(),
        ),
        ("AdmissionResponse.response.status", status, "v1.Status", status.is_object()),
        ("Status.response.status.message", &status["message"], "string", status["message"].is_string()),
        ("Status.response.status.reason", &status["reason"], "v1.StatusReason", status["reason"].is_string()),
        ("Status.response.status.code", &status["code"], "int32", status["code"].is_i64()),
        ("AdmissionResponse.response.patch", &response["patch"], "[]uint8", response["patch"].is_string()),
        (
            "AdmissionResponse.response.patchType",
            &response["patchType"],
            "v1.PatchType",
            response["patchType"].is_string(),
        ),
        (
            "AdmissionResponse.response.warnings",
            &response["warnings"],
            "[]string",
            response["warnings"].is_array(),
        ),
        (
            "AdmissionResponse.response.auditAnnotations",
            &response["auditAnnotations"],
            "map[string]string",
            response["auditAnnotations"].is_object(),
        ),
    ];
    match rows.into_iter().find(|(_, value, _, fits)| !value.is_null() && !fits) {
        None => Ok(()),
        Some((field, value, of, _)) => {
            let found = coracle_api::decode::found(value);
            Err(format!("json: cannot unmarshal {found} into Go struct field {field} of type {of}"))
        }
    }
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it, in upstream's words.
pub fn answer(version: &str, uid: &str, mutating: bool, review: &Value) -> Result<Answer, String> {
    let response = &review["response"];
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let patch_type = &response["patchType"];
    let patch = {
        use base64::Engine;
        base64::prelude::BASE64_STANDARD
            .decode(text(&response["patch"]))
            .map_err(|error| error.to_string())?
    };
    if version == "v1" {
        let given = text(&response["uid"]);
        if given != uid {
            return Err(format!("expected response.uid={uid:?}, got {given:?}"));
        }
        let (api, kind) = (text(&review["apiVersion"]), text(&review["kind"]));
        if (api.as_str(), kind.as_str()) != ("admission.k8s.io/v1", "AdmissionReview") {
            let api = if api.contains('/') { api } else { format!("/{api}") };
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {api}, Kind={kind}"
            ));
        }
        let fault = match (mutating, patch.is_empty(), patch_type.is_null()) {
            (true, false, true) => "webhook returned response.patch but not response.patchType",
            (true, true, false) => "webhook returned response.patchType but not response.patch",
            (false, false, _) => "validating webhook may not return response.patch",
            (false, true, false) => "validating webhook may not return response.patchType",
            _ => "",
        };
        if !fault.is_empty() {
            return Err(fault.to_owned());
        }
    }
    let patch_type = if patch.is_empty() { String::new() } else { text(patch_type) };
    Ok(Answer {
        allowed: response["allowed"] == true,
        status: response["status"].clone(),
        warnings: meta::strings(&response["warnings"]).map(str::to_owned).collect(),
        annotations: BTreeMap::deserialize(&response["auditAnnotations"]).unwrap_or_default(),
        patch: if mutating { patch } else { Vec::new() },
        // The older version knew but one.
        patch_type: if version == "v1" { patch_type } else { "JSONPatch".to_owned() },
    })
}

/// The Status of a refusal.
pub fn refusal(hook: &str, status: &Value) -> Status {
    let text = |key: &str| status[key].as_str().unwrap_or_default();
    let denied = format!("admission webhook {hook:?} denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
    let mut refused = Status::new(code, text("reason"), message);
    if status["details"].is_object() {
        refused.details = status["details"].clone();
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_do_not_fit_are_told() {
        let whole = |response: Value| json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        let rows = [
            (json!({}), true, "webhook response was absent"),
            (whole(json!({"uid": "b"})), true, "expected response.uid=\"a\", got \"b\""),
            (
                json!({"kind": "Pod", "apiVersion": "v1", "response": {"uid": "a"}}),
                true,
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /v1, Kind=Pod",
            ),
            (
                whole(json!({"uid": "a", "patch": "W10="})),
                true,
                "webhook returned response.patch but not response.patchType",
            ),
            (
                whole(json!({"uid": "a", "patchType": "JSONPatch"})),
                true,
                "webhook returned response.patchType but not response.patch",
            ),
            (
                whole(json!({"uid": "a", "patch": "W10="})),
                false,
                "validating webhook may not return response.patch",
            ),
            (
                whole(json!({"uid": "a", "patchType": "JSONPatch"})),
                false,
                "validating webhook may not return response.patchType",
            ),
        ];
        for (review, mutating, want) in rows {
            assert_eq!(answer("v1", "a", mutating, &review).expect_err(want), want);
        }
        let older = json!({"response": {"allowed": true, "patch": "W10="}});
        assert_eq!(answer("v1beta1", "a", true, &older).expect("fine").patch, b"[]");
    }

    #[test]
    fn replies_are_of_the_kind_and_the_types_that_were_asked_for() {
        let whole = |version: &str, response: Value| json!({"apiVersion": format!("{GROUP}/{version}"), "kind": "AdmissionReview", "response": response});
        let rows = [
            (whole("v1", json!({"allowed": true})), ""),
            (json!({"response": {"allowed": true}}), ""),
            (
                whole("v1beta1", json!({})),
                "converting (v1beta1.AdmissionReview) to (v1.AdmissionReview): unknown conversion",
            ),
            (
                whole("v9", json!({})),
                "no kind \"AdmissionReview\" is registered for version \"admission.k8s.io/v9\" in scheme \"pkg/runtime/scheme.go:110\"",
            ),
            (
                whole("v1", json!({"allowed": "yes"})),
                "json: cannot unmarshal string into Go struct field AdmissionResponse.response.allowed of type bool",
            ),
            (
                whole("v1", json!({"status": {"message": false}})),
                "json: cannot unmarshal bool into Go struct field Status.response.status.message of type string",
            ),
        ];
        for (review, want) in rows {
            assert_eq!(decoded("v1", &review).err().unwrap_or_default(), want);
        }
    }

    #[test]
    fn refusals_are_worded_by_what_the_webhook_tells() {
        let rows = [
            (Value::Null, 400, "admission webhook \"h\" denied the request without explanation"),
            (
                json!({"reason": "Because", "code": 200}),
                400,
                "admission webhook \"h\" denied the request: Because",
            ),
            (json!({"message": "no", "code": 409}), 409, "admission webhook \"h\" denied the request: no"),
        ];
        for (status, code, message) in rows {
            let refused = refusal("h", &status);
            assert_eq!((refused.code, refused.message.as_str()), (code, message));
        }
    }
}
