//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction.

use super::{Attributes, CREATE, Context, UPDATE};
use crate::request::RequestInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::status::Status;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

/// Whether it is such a write of a request.
fn is(attributes: &Attributes<'_>, operation: &str, path: &str) -> bool {
    attributes.operation == operation && attributes.is_of(GROUP, path)
}

fn signer(request: &Value) -> &str {
    request["spec"]["signerName"].as_str().unwrap_or_default()
}

/// Refuses approvals by those who may not give them.
pub async fn approve(context: &Context, attributes: &Attributes<'_>, request: &Value) -> Result<(), Status> {
    match attributes.old {
        Some(old) if is(attributes, UPDATE, "certificatesigningrequests/approval") => {
            may(context, attributes, request, "approve", signer(old)).await
        }
        _ => Ok(()),
    }
}

/// Refuses signatures by those who may not give them.
pub async fn sign(context: &Context, attributes: &Attributes<'_>, request: &Value) -> Result<(), Status> {
    match attributes.old {
        Some(old)
            if is(attributes, UPDATE, "certificatesigningrequests/status")
                && old["status"]["certificate"] != request["status"]["certificate"] =>
        {
            may(context, attributes, request, "sign", signer(old)).await
        }
        _ => Ok(()),
    }
}

/// Refuses requests for `system:masters`.
pub fn of_whom(attributes: &Attributes<'_>, request: &Value) -> Result<(), Status> {
    let made = is(attributes, CREATE, "certificatesigningrequests");
    if !made || signer(request) != CLIENT_SIGNER || !asks_for_masters(request) {
        return Ok(());
    }
    let cause = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
    Err(attributes.forbidden(request, &cause))
}

/// The permission is on the signer's name, or on `DOMAIN/*`.
async fn may(
    context: &Context,
    attributes: &Attributes<'_>,
    object: &Value,
    verb: &str,
    signer: &str,
) -> Result<(), Status> {
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let asked = RequestInfo {
            is_resource: true,
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
            name,
            ..RequestInfo::default()
        };
        if context.authorization.allows(attributes.user, &asked).await {
            return Ok(());
        }
    }
    Err(attributes
        .forbidden(object, &format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

/// Whether the PEM request names the group. One that cannot be read is refused by validation.
fn asks_for_masters(request: &Value) -> bool {
    let groups = |subject: &X509Name<'_>| {
        subject.iter_organization().any(|group| group.as_str().is_ok_and(|group| group == MASTERS))
    };
    of_subject(request, groups).unwrap_or_default()
}

/// Who a request's certificate is to be of; `None` when it cannot be read.
pub fn common_name(request: &Value) -> Option<String> {
    of_subject(request, |subject| {
        let name = subject.iter_common_name().last();
        name.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
    })
}

fn of_subject<T>(request: &Value, asked: impl Fn(&X509Name<'_>) -> T) -> Option<T> {
    let pem = STANDARD.decode(request["spec"]["request"].as_str()?).ok()?;
    let der = CertificateSigningRequestDer::from_pem_slice(&pem).ok()?;
    let (_, parsed) = X509CertificationRequest::from_der(&der).ok()?;
    Some(asked(&parsed.certification_request_info.subject))
}
