//! What each of the cluster's signers signs, and for how long.

use super::{Signer, has, issued};
use coracle_keys::certificate::{Request, Usage};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const LEGACY: &str = "kubernetes.io/legacy-unknown";

const NODES: &str = "system:nodes";
const NODE: &str = "system:node:";
const SECONDS_MIN: i64 = 600;

/// The certificate of an approved request, or why its signer does not sign it; `None` when there is nothing to do.
pub fn signed(
    signer: &Signer,
    request: &CertificateSigningRequest,
    now: jiff::Timestamp,
) -> Option<Result<String, String>> {
    let spec = &request.spec;
    let ready = has(request, "Approved") && !has(request, "Denied") && !has(request, "Failed");
    if !ready
        || issued(request).is_some()
        || ![KUBELET_CLIENT, CLIENT, SERVING, LEGACY].contains(&&*spec.signer_name)
    {
        return None;
    }
    Some(issue(signer, request, now))
}

fn issue(
    signer: &Signer,
    request: &CertificateSigningRequest,
    now: jiff::Timestamp,
) -> Result<String, String> {
    let spec = &request.spec;
    let asked = Request::read(&spec.request.0).map_err(|error| format!("unable to parse csr: {error:#}"))?;
    let usages = spec.usages.as_deref().unwrap_or_default();
    match spec.signer_name.as_str() {
        KUBELET_CLIENT => kubelet_client(&asked, usages)?,
        SERVING => kubelet_serving(&asked, usages)?,
        CLIENT => only(usages, &["client auth"], &["digital signature", "key encipherment", "client auth"])?,
        _ => {}
    }
    let mut kinds = Vec::new();
    for name in usages {
        kinds.push(Usage::named(name).ok_or_else(|| format!("unrecognized usage: {name:?}"))?);
    }
    let longest = i64::try_from(signer.longest.as_secs()).unwrap_or(i64::MAX);
    let seconds =
        spec.expiration_seconds.map_or(longest, |wanted| i64::from(wanted).max(SECONDS_MIN).min(longest));
    signer.authority.issue(&asked, &kinds, now, seconds).map_err(|error| format!("{error:#}"))
}

/// Usages must be some of `allowed`, with all of `required`.
fn only(usages: &[String], required: &[&str], allowed: &[&str]) -> Result<(), String> {
    let fits = required.iter().all(|one| usages.iter().any(|own| own == one))
        && usages.iter().all(|own| allowed.contains(&own.as_str()));
    if fits { Ok(()) } else { Err(format!("usages did not match {allowed:?}")) }
}

fn of_node(asked: &Request) -> Result<(), String> {
    if asked.organizations != [NODES] {
        return Err(format!("subject organization is not {NODES}"));
    }
    if !asked.common_name.starts_with(NODE) {
        return Err(format!("subject common name does not begin with {NODE}"));
    }
    Ok(())
}

fn none_of<T>(names: &[T], what: &str) -> Result<(), String> {
    if names.is_empty() { Ok(()) } else { Err(format!("{what} subjectAltNames are not allowed")) }
}

/// Whether it is a node's certificate as a client.
pub fn kubelet_client(asked: &Request, usages: &[String]) -> Result<(), String> {
    of_node(asked)?;
    none_of(&asked.dns, "DNS")?;
    none_of(&asked.emails, "Email")?;
    none_of(&asked.ips, "IP")?;
    none_of(&asked.uris, "URI")?;
    only(
        usages,
        &["digital signature", "client auth"],
        &["key encipherment", "digital signature", "client auth"],
    )
}

/// Whether it is a node's certificate as a server.
fn kubelet_serving(asked: &Request, usages: &[String]) -> Result<(), String> {
    of_node(asked)?;
    if asked.dns.is_empty() && asked.ips.is_empty() {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    none_of(&asked.emails, "Email")?;
    none_of(&asked.uris, "URI")?;
    only(
        usages,
        &["digital signature", "server auth"],
        &["key encipherment", "digital signature", "server auth"],
    )
}
