//! Client certificates: a verified leaf in, its user out. The chain itself was checked by TLS.

use crate::request::UserInfo;
use coracle_daemon::clock;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The user that a leaf certificate speaks for: CN is the name, each O a group. `None` when it is no client certificate,
/// has no CN, or is out of its time now (a connection may outlive its certificate).
pub fn user(leaf: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let now = x509_parser::time::ASN1Time::from_timestamp(clock::now().as_second()).ok()?;
    if !certificate.validity().is_valid_at(now) {
        return None;
    }
    if let Some(usage) = certificate.extended_key_usage().ok()?
        && !(usage.value.client_auth || usage.value.any)
    {
        return None;
    }
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())?.to_owned();
    let groups =
        subject.iter_organization().filter_map(|group| group.as_str().ok().map(str::to_owned)).collect();
    let id = format!("X509SHA256={}", hex::encode(Sha256::digest(leaf)));
    let extra = BTreeMap::from([("authentication.kubernetes.io/credential-id".to_owned(), vec![id])]);
    Some(UserInfo { name, groups, extra, ..UserInfo::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

    fn leaf(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        params.self_signed(&KeyPair::generate().expect("key")).expect("certificate").der().to_vec()
    }

    #[test]
    fn common_name_is_the_user_and_organizations_are_groups() {
        let user = user(&leaf(|_| ())).expect("a user");
        assert_eq!((user.name.as_str(), user.groups), ("jane", vec!["dev".to_owned()]));
        assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
    }

    #[test]
    fn other_purposes_and_expired_certificates_speak_for_nobody() {
        assert_eq!(
            user(&leaf(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
            None
        );
        assert_eq!(user(&leaf(|params| params.not_after = rcgen::date_time_ymd(2001, 1, 1))), None);
        assert_eq!(user(b"not a certificate"), None);
    }
}
