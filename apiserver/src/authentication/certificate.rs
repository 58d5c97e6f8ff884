//! Client certificates: a verified leaf in, its user out. The chain itself was checked by TLS.

use crate::request::UserInfo;
use coracle_daemon::clock;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A leaf certificate, read once for all requests of its connection.
#[derive(Debug)]
pub enum Leaf {
    /// The user that it speaks for, and the first and last second at which it does.
    Of(UserInfo, RangeInclusive<i64>),
    /// A client's certificate that names nobody.
    Nameless,
    /// Something else.
    Unfit,
}

impl Leaf {
    /// CN is the user's name, each O a group; what is no client certificate or has no CN speaks for nobody.
    pub fn read(der: &[u8]) -> Self {
        read(der).unwrap_or(Self::Unfit)
    }

    /// The user, unless it is out of its time now: a connection may outlive its certificate.
    pub fn user(&self) -> Option<&UserInfo> {
        let Self::Of(user, valid) = self else { return None };
        valid.contains(&clock::now().as_second()).then_some(user)
    }

    /// How much longer it speaks for its user.
    pub fn left(&self) -> Option<Duration> {
        let Self::Of(_, valid) = self else { return None };
        let left = valid.end().saturating_sub(clock::now().as_second());
        Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
    }
}

fn read(der: &[u8]) -> Option<Leaf> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    if let Some(usage) = certificate.extended_key_usage().ok()?
        && !(usage.value.client_auth || usage.value.any)
    {
        return None;
    }
    let subject = certificate.subject();
    let name = match subject.iter_common_name().next().map(|name| name.as_str()) {
        Some(name) => name.ok()?.to_owned(),
        None => String::new(),
    };
    if name.is_empty() {
        return Some(Leaf::Nameless);
    }
    let groups =
        subject.iter_organization().filter_map(|group| group.as_str().ok().map(str::to_owned)).collect();
    let id = format!("X509SHA256={}", hex::encode(Sha256::digest(der)));
    let extra = BTreeMap::from([("authentication.kubernetes.io/credential-id".to_owned(), vec![id])]);
    let validity = certificate.validity();
    let valid = validity.not_before.timestamp()..=validity.not_after.timestamp();
    Some(Leaf::Of(UserInfo { name, groups, extra, ..UserInfo::default() }, valid))
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
        let leaf = Leaf::read(&leaf(|_| ()));
        let user = leaf.user().expect("a user").clone();
        assert_eq!((user.name.as_str(), user.groups), ("jane", vec!["dev".to_owned()]));
        assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
    }

    #[test]
    fn other_purposes_and_expired_certificates_speak_for_nobody() {
        let server = |params: &mut CertificateParams| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        };
        assert_eq!(Leaf::read(&leaf(server)).user(), None);
        let expired = leaf(|params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
        assert_eq!(Leaf::read(&expired).user(), None);
        assert_eq!(Leaf::read(b"not a certificate").user(), None);
    }
}
