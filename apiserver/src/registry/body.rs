//! Request bodies in, canonical objects out, with the findings that `fieldValidation` tells or refuses.

use super::options::FieldValidation;
use crate::audit;
use crate::storage::encode::Media;
use coracle_api::decode::{self, DecodeError, Decoded};
use coracle_api::kinds::{self, Kind};
use coracle_api::meta;
use coracle_api::status::Status;
use coracle_api::strategy;
use serde_json::Value;
use std::sync::Arc;

/// Media types of bodies.
const ACCEPTED: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// The serialization of a body; JSON when nothing is said.
///
/// # Errors
/// 415.
pub fn media(content_type: &str) -> Result<Media, Status> {
    match content_type {
        "" | "application/json" => Ok(Media::Json),
        "application/yaml" => Ok(Media::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Media::Protobuf),
        _ => Err(Status::unsupported_media_type(&ACCEPTED)),
    }
}

/// An object and what there is to warn of.
pub struct Read {
    /// Canonical.
    pub object: Value,
    /// For the writer.
    pub warnings: Vec<String>,
    /// See [`Decoded::raises`].
    pub raises: bool,
}

/// Decodes a body that should be of `kind`.
///
/// # Errors
/// 400 for what cannot be decoded, 415 for an unknown media type.
pub fn read(
    content_type: &str,
    body: &[u8],
    kind: &Kind,
    validation: FieldValidation,
) -> Result<Read, Status> {
    let media = media(content_type)?;
    if kind.custom.is_some() && media == Media::Protobuf {
        return Err(Status::unsupported_media_type(&ACCEPTED[..2]));
    }
    let decoded = match media {
        Media::Json => decode::json(body, kind),
        Media::Yaml => decode::yaml(body, kind),
        Media::Protobuf => decode::protobuf(body, kind),
    };
    let decoded = decoded.and_then(|decoded| match strategy::inconvertible(&decoded.object, kind) {
        Some(text) => Err(DecodeError::BadRequest(of_kind(kind) + &text)),
        None => Ok(decoded),
    });
    let DecodeError::BadRequest(text) = match decoded {
        Ok(decoded) => {
            audit::request(&decoded.object, kind);
            return judged(decoded, validation, || of_kind(kind));
        }
        Err(error) => error,
    };
    Err(Status::bad_request(text))
}

fn of_kind(kind: &Kind) -> String {
    let (name, version) = (&kind.kind, &kind.version);
    format!("{name} in version {version:?} cannot be handled as a {name}: ")
}

/// Takes out the owners that an object names twice, and warns of them. Kubernetes looks for them before admission changes an
/// object that was sent whole, and once more after it.
pub fn dedup_owners(object: &mut Value, admitted: bool) -> Option<String> {
    let again = meta::dedup_owners(object);
    let when = if admitted { " after mutating admission happens" } else { "" };
    (!again.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            again.join(", ")
        )
    })
}

/// What YAML finds all at once is warned of one by one.
fn warnings(finding: &str) -> Vec<String> {
    match finding.strip_prefix("yaml: unmarshal errors:\n") {
        Some(lines) => lines.lines().map(|line| line.trim().to_owned()).collect(),
        None => vec![finding.to_owned()],
    }
}

/// Refuses or passes on findings; `prefix` goes before the text of a refusal.
///
/// # Errors
/// 400 where validation is strict.
pub fn judged(
    decoded: Decoded,
    validation: FieldValidation,
    prefix: impl FnOnce() -> String,
) -> Result<Read, Status> {
    let Decoded { object, findings, raises } = decoded;
    match validation {
        FieldValidation::Strict if !findings.is_empty() => {
            Err(Status::bad_request(format!("{}strict decoding error: {}", prefix(), findings.join(", "))))
        }
        FieldValidation::Warn => {
            let warnings = findings.iter().flat_map(|finding| warnings(finding)).collect();
            Ok(Read { object, warnings, raises })
        }
        _ => Ok(Read { object, warnings: Vec::new(), raises }),
    }
}

/// The kind of a body that is no resource of its own: Scale, Eviction, TokenRequest, DeleteOptions …
#[must_use]
pub fn loose_kind(group: &str, version: &str, name: &str) -> Arc<Kind> {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    if let Some(kind) = kinds::by_gvk(&api_version, name) {
        return kind.clone();
    }
    let package = match group {
        "" => "io.k8s.api.core",
        "meta.k8s.io" => "io.k8s.apimachinery.pkg.apis.meta",
        "authentication.k8s.io" => "io.k8s.api.authentication",
        "autoscaling" => "io.k8s.api.autoscaling",
        _ => "io.k8s.api.policy",
    };
    Arc::new(Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: name.to_owned(),
        plural: name.to_lowercase(),
        singular: name.to_lowercase(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: true,
        verbs: Vec::new(),
        subresources: Vec::new(),
        storage_version: api_version,
        definition: format!("{package}.{version}.{name}"),
        custom: None,
    })
}
