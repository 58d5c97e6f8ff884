//! Which requests are approved without anybody looking: a node's client certificate, asked for by the node itself or by who
//! may ask for any node's.

use super::{has, issued, sign};
use coracle_keys::certificate::Request;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

/// Permissions of which any has a request approved, and what is noted then; `None` for requests that people look at.
pub fn recognized(request: &CertificateSigningRequest) -> Option<Vec<(&'static str, &'static str)>> {
    if issued(request).is_some() || has(request, "Approved") || has(request, "Denied") {
        return None;
    }
    if request.spec.signer_name != sign::KUBELET_CLIENT {
        return None;
    }
    let asked = Request::read(&request.spec.request.0).ok()?;
    sign::kubelet_client(&asked, request.spec.usages.as_deref().unwrap_or_default()).ok()?;
    let mut permissions = Vec::new();
    if request.spec.username.as_ref() == Some(&asked.common_name) {
        permissions.push((
            "selfnodeclient",
            "Auto approving self kubelet client certificate after SubjectAccessReview.",
        ));
    }
    permissions.push(("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."));
    Some(permissions)
}

/// Whether a request's sender has a permission.
pub fn question(request: &CertificateSigningRequest, subresource: &str) -> SubjectAccessReview {
    let spec = &request.spec;
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                verb: Some("create".to_owned()),
                subresource: Some(subresource.to_owned()),
                version: Some("*".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
