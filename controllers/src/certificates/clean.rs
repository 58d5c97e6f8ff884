//! How long requests stay: an hour after they were decided on, a day while nobody does, and no longer than what was issued.

use super::{condition, issued};
use crate::plan::{Action, CERTIFICATE_SIGNING_REQUEST, Deletion, Plan};
use coracle_client::Key;
use coracle_keys::certificate;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use std::time::Duration;

const HOUR: i64 = 3600;
const PENDING: i64 = 24 * HOUR;

#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// Its time is over.
    Gone,
    /// Not before this.
    Later(Duration),
}

/// When a request goes.
pub fn look(request: &CertificateSigningRequest, now: jiff::Timestamp) -> Look {
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, |created| created.0).as_second();
    let decided = ["Approved", "Denied", "Failed"].into_iter().filter_map(|kind| {
        let at = condition(request, kind)?.last_update_time.as_ref();
        Some(at.map_or(created, |at| at.0.as_second()) + HOUR)
    });
    let decided = decided.min();
    let expires = issued(request).and_then(|pem| certificate::expiry(pem).ok());
    let until = [decided.unwrap_or(created + PENDING)].into_iter().chain(expires).min().unwrap_or(created);
    match u64::try_from(until - now.as_second()) {
        Ok(left) if left > 0 => Look::Later(Duration::from_secs(left)),
        _ => Look::Gone,
    }
}

/// Deletes this very request.
pub fn deletion(request: &CertificateSigningRequest) -> Plan {
    let mut plan = Plan::default();
    plan.then([Action::Delete {
        resource: &CERTIFICATE_SIGNING_REQUEST,
        key: Key::of(&request.metadata),
        uid: request.metadata.uid.clone(),
        how: Deletion::default(),
        owner: None,
    }]);
    plan
}
