//! What another server has, for tests.

use std::path::Path;

/// Writes a CA, and a certificate of it for 127.0.0.1, into `folder`.
pub fn certificates(folder: &Path) {
    let ca_key = rcgen::KeyPair::generate().expect("key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).expect("ca");
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().expect("key");
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("params");
    let leaf = leaf.signed_by(&key, &issuer).expect("leaf");
    for (name, text) in [("ca.pem", ca.pem()), ("cert.pem", leaf.pem()), ("key.pem", key.serialize_pem())] {
        std::fs::write(folder.join(name), text).expect("written");
    }
}
