//! Who a client is, by the subject of its certificate, which TLS has verified against our CA.

use x509_parser::prelude::{FromDer, X509Certificate};

/// Members may do anything.
const ADMINISTRATORS: &str = "system:masters";
/// What an apiserver calls itself when it asks kubelets.
const APISERVER: &str = "kube-apiserver-kubelet-client";

/// A client by its certificate; nobody by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// CN: the user's name.
    pub name: String,
    /// O: groups.
    groups: Vec<String>,
}

impl Client {
    /// The subject of a certificate in DER; nobody, if it cannot be read.
    pub fn of(certificate: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Self::default() };
        let subject = certificate.subject();
        let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
        Self { name: name.unwrap_or_default().to_owned(), groups: groups.map(str::to_owned).collect() }
    }

    /// Whether it may ask this kubelet for anything.
    pub fn may_ask(&self) -> bool {
        self.name == APISERVER || self.groups.iter().any(|group| group == ADMINISTRATORS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_apiserver_and_administrators_may_ask() {
        for (name, groups, expected) in [
            ("kube-apiserver-kubelet-client", vec![], true),
            ("kubernetes-admin", vec!["system:masters"], true),
            ("system:node:n1", vec!["system:nodes"], false),
            ("", vec![], false),
        ] {
            let client =
                Client { name: name.into(), groups: groups.into_iter().map(str::to_owned).collect() };
            assert_eq!(client.may_ask(), expected, "{name}");
        }
        assert!(!Client::of(b"garbage").may_ask());
    }
}
