//! CertificateSigningRequest: what is asked of which signer, and how it was decided.

use super::node::{Faults, Node, Seen, unique};
use super::{config, diff};
use crate::labels;
use crate::strategy::same;
use serde_json::{Value, json};

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const DECISIONS: [&str; 3] = ["Approved", "Denied", "Failed"];

pub(super) fn request(object: &Node<'_, '_>, out: &mut Faults) {
    judge(object, &Value::Null, out);
}

/// What the stored request gets wrong the new one may get wrong too.
fn judge(object: &Node<'_, '_>, stored: &Value, out: &mut Faults) {
    let stored = Node::root(stored);
    let (spec, before) = (object.get("spec"), stored.get("spec"));
    let request = spec.get("request");
    let pem = config::decoded(request.value);
    if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE REQUEST-----") {
        request.invalid("PEM block type must be CERTIFICATE REQUEST", out);
    }
    let (usages, old) = (spec.get("usages"), before.get("usages"));
    usages.must_be_given(out);
    if old.items().all(|usage| USAGES.contains(&usage.text())) {
        usages.items().for_each(|usage| usage.must_be_one_of(&USAGES, out));
    }
    if all_differ(&old) {
        unique(usages.items().collect::<Vec<_>>().iter().copied(), out);
    }
    let signer = spec.get("signerName");
    if signer.text() == LEGACY_SIGNER && before.get("signerName").text() != LEGACY_SIGNER {
        signer.invalid("the legacy signerName is not allowed via this API version", out);
    } else {
        signer_name(&signer, out);
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.is_set() && seconds.int() < 600 {
        seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)", out);
    }
    conditions(&object.get("status.conditions"), &stored.get("status.conditions"), out);
    let (certificate, old) = (object.get("status.certificate"), stored.get("status.certificate"));
    if certificate.text() != old.text()
        && certificate_fault(old.value).is_none()
        && let Some(why) = certificate_fault(certificate.value)
    {
        certificate.invalid_as(&json!("<certificate data>"), why, out);
    }
}

fn all_differ(list: &Node<'_, '_>) -> bool {
    let mut faults = Faults::new();
    unique(list.items().collect::<Vec<_>>().iter().copied(), &mut faults);
    faults.is_empty()
}

/// What is wrong with a chain of certificates in PEM.
fn certificate_fault(value: &Value) -> Option<String> {
    let bytes = config::decoded(value);
    if bytes.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut blocks = 0;
    for block in text.split("-----BEGIN ").skip(1) {
        let (kind, rest) = block.split_once("-----")?;
        if !rest.contains(&format!("-----END {kind}-----")) {
            continue;
        }
        if kind != "CERTIFICATE" {
            let shown = crate::status::go_quoted(kind);
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {shown}"));
        }
        if rest.lines().skip(1).take_while(|line| !line.is_empty()).any(|line| line.contains(": ")) {
            return Some("no PEM block headers are permitted".to_owned());
        }
        blocks += 1;
    }
    (blocks == 0).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

/// `DOMAIN/NAME` with a domain of at least two labels.
pub(super) fn signer_name(signer: &Node<'_, '_>, out: &mut Faults) {
    const FORM: &str = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    // 253 for the domain, 253 for the name, and the slash.
    const MAX: usize = 571;
    let text = signer.text();
    if text.is_empty() {
        return signer.required("", out);
    }
    let Some((domain, path)) = text.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        return signer.invalid(FORM, out);
    };
    if domain.len() > labels::DNS_SUBDOMAIN_MAX {
        signer.too_long(253, out);
    }
    dotted_labels(signer, domain, labels::is_dns1123_label, out);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        signer.invalid_as(&json!(domain), detail, out);
    }
    dotted_labels(signer, path, labels::is_dns1123_subdomain, out);
    if text.len() > MAX {
        signer.too_long(571, out);
    }
}

/// Tells of the first label that is none.
fn dotted_labels(signer: &Node<'_, '_>, text: &str, check: fn(&str) -> Vec<String>, out: &mut Faults) {
    let Some(label) = text.split('.').find(|label| !check(label).is_empty()) else { return };
    for complaint in check(label) {
        let detail = format!("validating label {}: {complaint}", crate::status::go_quoted(label));
        signer.invalid_as(&json!(text), detail, out);
    }
}

fn conditions(conditions: &Node<'_, '_>, stored: &Node<'_, '_>, out: &mut Faults) {
    let had = |kind: &str| stored.items().any(|condition| condition.get("type").text() == kind);
    let mut types: Vec<&str> = stored.items().map(|condition| condition.get("type").text()).collect();
    types.sort_unstable();
    let repeated = types.windows(2).any(|pair| pair[0] == pair[1]);
    let mut seen = Seen::new();
    for condition in conditions.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        if kind.is_empty() && !had("") {
            kind.required("", out);
        }
        let decided = DECISIONS.contains(&kind.text());
        status.required_one_of(if decided { &["True"] } else { &["False", "True", "Unknown"] }, out);
        let opposite = match kind.text() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if seen.contains(&opposite) && !opposite.is_empty() && !(had("Approved") && had("Denied")) {
            kind.invalid("Approved and Denied conditions are mutually exclusive", out);
        }
        if seen.contains(&kind.text()) && !repeated {
            kind.duplicate(out);
        }
        seen.insert(kind.text());
    }
}

pub(super) fn request_update(new: &Node<'_, '_>, old: &Node<'_, '_>, subresource: &str, out: &mut Faults) {
    judge(new, old.value, out);
    let (list, before) = (new.get("status.conditions"), old.get("status.conditions"));
    let find = |list: &Node<'_, '_>, kind: &str| -> Vec<Value> {
        let found = list.items().filter(|condition| condition.get("type").text() == kind);
        found.map(|condition| condition.value.clone()).collect()
    };
    for kind in DECISIONS {
        if find(&list, kind).len() < find(&before, kind).len() {
            list.forbidden(format!("updates may not remove a condition of type {kind:?}"), out);
        }
    }
    for kind in ["Approved", "Denied"].iter().filter(|_| subresource != "approval") {
        let (now, was) = (find(&list, kind), find(&before, kind));
        if now.len() > was.len() {
            list.forbidden(format!("updates may not add a condition of type {kind:?}"), out);
        } else if now.len() == was.len() && !now.iter().zip(&was).all(|(now, was)| same(now, was)) {
            let difference = diff::conditions(&json!(was), &json!(now));
            let detail = format!("updates may not modify a condition of type {kind:?}\n{difference}");
            list.forbidden(detail, out);
        }
    }
    let (certificate, before) = (new.get("status.certificate"), old.get("status.certificate"));
    if certificate.text() != before.text() {
        if subresource != "status" {
            certificate.forbidden("updates may not set certificate content", out);
        } else if !before.is_empty() {
            certificate.forbidden("updates may not modify existing certificate content", out);
        }
    }
}
