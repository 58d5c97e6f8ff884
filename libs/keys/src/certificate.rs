//! Certificates (RFC 5280) for other people's keys: a signing request and a CA in, a certificate out.
//!
//! Subject and key are copied byte for byte from the request, of its extensions only the alternative names. Invariant: what
//! is issued is no CA, begins in the past, and ends no later than its CA.

use crate::SigningKey;
use crate::der::{
    self, BIT_STRING, BOOLEAN, GENERALIZED_TIME, OCTET_STRING, SEQUENCE, UTC_TIME, der, explicit, integer,
};
use anyhow::{Context, anyhow, bail, ensure};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use std::net::IpAddr;
use std::path::Path;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// For clocks that are behind.
const BACKDATE_SECONDS: i64 = 5 * 60;
const YEAR_OF_LONG_TIMES: i16 = 2050;

/// What a signing request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// CN of the subject; empty when it has none.
    pub common_name: String,
    /// Its O, in order.
    pub organizations: Vec<String>,
    /// Alternative names.
    pub dns: Vec<String>,
    /// See [`Request::dns`].
    pub emails: Vec<String>,
    /// See [`Request::dns`].
    pub ips: Vec<IpAddr>,
    /// See [`Request::dns`].
    pub uris: Vec<String>,
    subject: Vec<u8>,
    key: Vec<u8>,
}

impl Request {
    /// Reads a PEM request and checks that it is signed by its own key.
    ///
    /// # Errors
    /// It is none.
    pub fn read(pem: &[u8]) -> anyhow::Result<Self> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem)
            .map_err(|_| anyhow!("PEM block type must be CERTIFICATE REQUEST"))?;
        let (_, parsed) = X509CertificationRequest::from_der(&der).context("cannot read the request")?;
        check(&parsed)?;
        let info = &parsed.certification_request_info;
        let mut request = Self {
            subject: info.subject.as_raw().to_vec(),
            key: info.subject_pki.raw.to_vec(),
            ..Self::default()
        };
        // Of several names the last counts, as in Go.
        for name in info.subject.iter_common_name() {
            name.as_str().context("the subject is no text")?.clone_into(&mut request.common_name);
        }
        for organization in info.subject.iter_organization() {
            request.organizations.push(organization.as_str().context("the subject is no text")?.to_owned());
        }
        for extension in parsed.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                for name in &names.general_names {
                    request.add(name)?;
                }
            }
        }
        Ok(request)
    }

    fn add(&mut self, name: &GeneralName<'_>) -> anyhow::Result<()> {
        match name {
            GeneralName::DNSName(name) => self.dns.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let four: Result<[u8; 4], _> = (*bytes).try_into();
                let sixteen: Result<[u8; 16], _> = (*bytes).try_into();
                self.ips.push(match (four, sixteen) {
                    (Ok(four), _) => four.into(),
                    (_, Ok(sixteen)) => sixteen.into(),
                    _ => bail!("an alternative name is no IP address"),
                });
            }
            // As Go: other kinds of names are not copied.
            _ => {}
        }
        Ok(())
    }

    /// The extension's value; `None` without any name.
    fn names(&self) -> Option<Vec<u8>> {
        let text = |tag: u8, names: &[String]| -> Vec<Vec<u8>> {
            names.iter().map(|name| der(tag, &[name.as_bytes()])).collect()
        };
        let mut all = text(0x82, &self.dns);
        all.extend(text(0x81, &self.emails));
        all.extend(self.ips.iter().map(|ip| match ip {
            IpAddr::V4(ip) => der(0x87, &[&ip.octets()]),
            IpAddr::V6(ip) => der(0x87, &[&ip.octets()]),
        }));
        all.extend(text(0x86, &self.uris));
        (!all.is_empty()).then(|| der(SEQUENCE, &[&all.concat()]))
    }

    fn has_subject(&self) -> bool {
        self.subject.len() > 2
    }
}

/// Whether a request's signature is its own key's.
fn check(request: &X509CertificationRequest<'_>) -> anyhow::Result<()> {
    let algorithm = request.signature_algorithm.algorithm.to_id_string();
    let how: &dyn signature::VerificationAlgorithm = match algorithm.as_str() {
        "1.2.840.10045.4.3.2" => &signature::ECDSA_P256_SHA256_ASN1,
        "1.2.840.10045.4.3.3" => &signature::ECDSA_P384_SHA384_ASN1,
        "1.2.840.113549.1.1.11" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "1.2.840.113549.1.1.12" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "1.2.840.113549.1.1.13" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "1.3.101.112" => &signature::ED25519,
        other => bail!("x509: cannot verify signature: algorithm {other} unimplemented"),
    };
    let info = &request.certification_request_info;
    let key = &info.subject_pki.subject_public_key.data;
    signature::UnparsedPublicKey::new(how, key.as_ref())
        .verify(info.raw, &request.signature_value.data)
        .map_err(|_| anyhow!("x509: the signature of the request is not its own key's"))
}

/// What an issued certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A bit of keyUsage, counted from the first.
    Key(u8),
    /// An extended usage below 1.3.6.1.5.5.7.3.
    Extended(u8),
    /// Any extended usage.
    Any,
}

impl Usage {
    /// By Kubernetes' name for it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "signing" | "digital signature" => Self::Key(0),
            "content commitment" => Self::Key(1),
            "key encipherment" => Self::Key(2),
            "data encipherment" => Self::Key(3),
            "key agreement" => Self::Key(4),
            "cert sign" => Self::Key(5),
            "crl sign" => Self::Key(6),
            "encipher only" => Self::Key(7),
            "decipher only" => Self::Key(8),
            "any" => Self::Any,
            "server auth" => Self::Extended(1),
            "client auth" => Self::Extended(2),
            "code signing" => Self::Extended(3),
            "email protection" | "s/mime" => Self::Extended(4),
            "ipsec end system" => Self::Extended(5),
            "ipsec tunnel" => Self::Extended(6),
            "ipsec user" => Self::Extended(7),
            "timestamping" => Self::Extended(8),
            "ocsp signing" => Self::Extended(9),
            _ => return None,
        })
    }
}

/// A CA with its key.
pub struct Authority {
    key: SigningKey,
    name: Vec<u8>,
    key_id: Option<Vec<u8>>,
    /// Seconds since 1970.
    not_after: i64,
}

impl Authority {
    /// From the PEM files of certificate and key.
    ///
    /// # Errors
    /// They cannot be read, or do not belong together.
    pub fn from_files(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let der = CertificateDer::from_pem_file(certificate)
            .with_context(|| format!("cannot read {}", certificate.display()))?;
        let (_, parsed) = X509Certificate::from_der(&der)
            .with_context(|| format!("cannot read {}", certificate.display()))?;
        let key = SigningKey::from_file(key)?;
        let own = crate::VerifyingKey::from_spki(parsed.public_key().raw)?;
        ensure!(own.id() == key.public().id(), "the CA's key is not its certificate's");
        let key_id = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let not_after = parsed.validity().not_after.timestamp();
        Ok(Self { key, name: parsed.subject().as_raw().to_vec(), key_id, not_after })
    }

    /// The PEM certificate of a request: valid from `now` for so many seconds.
    ///
    /// # Errors
    /// The CA has expired, or the system has no randomness.
    pub fn issue(
        &self,
        request: &Request,
        usages: &[Usage],
        now: jiff::Timestamp,
        seconds: i64,
    ) -> anyhow::Result<String> {
        let now = now.as_second();
        ensure!(now < self.not_after, "refusing to sign a certificate that expired in the past: the CA has");
        let mut serial = [0; 16];
        SystemRandom::new().fill(&mut serial).map_err(|_| anyhow!("no randomness"))?;
        serial[0] &= 0x7f;
        let algorithm = self.key.x509_algorithm();
        let validity = [now - BACKDATE_SECONDS, now.saturating_add(seconds).min(self.not_after)].map(time);
        let [begin, end] = validity;
        let validity = der(SEQUENCE, &[&begin?, &end?]);
        let tbs = der(
            SEQUENCE,
            &[
                &explicit(0, &[&integer(&[2])]),
                &integer(&serial),
                &algorithm,
                &self.name,
                &validity,
                &request.subject,
                &request.key,
                &explicit(3, &[&der(SEQUENCE, &[&self.extensions(request, usages).concat()])]),
            ],
        );
        let signature = self.key.sign_x509(&tbs).map_err(|_| anyhow!("cannot sign"))?;
        let whole = der(SEQUENCE, &[&tbs, &algorithm, &der(BIT_STRING, &[&[0], &signature])]);
        Ok(pem("CERTIFICATE", &whole))
    }

    fn extensions(&self, request: &Request, usages: &[Usage]) -> Vec<Vec<u8>> {
        let mut extensions = Vec::new();
        let bits = usages.iter().filter_map(|usage| match usage {
            Usage::Key(bit) => Some(*bit),
            _ => None,
        });
        let bits = bits.fold(0_u16, |bits, bit| bits | 0x8000 >> bit);
        if bits != 0 {
            extensions.push(extension(&[0x55, 0x1d, 0x0f], true, &named_bits(bits)));
        }
        let extended: Vec<Vec<u8>> = usages
            .iter()
            .filter_map(|usage| match usage {
                Usage::Extended(which) => Some(der(0x06, &[&[0x2b, 6, 1, 5, 5, 7, 3, *which]])),
                Usage::Any => Some(der(0x06, &[&[0x55, 0x1d, 0x25, 0]])),
                Usage::Key(_) => None,
            })
            .collect();
        if !extended.is_empty() {
            extensions.push(extension(&[0x55, 0x1d, 0x25], false, &der(SEQUENCE, &[&extended.concat()])));
        }
        extensions.push(extension(&[0x55, 0x1d, 0x13], true, &der(SEQUENCE, &[])));
        if let Some(id) = &self.key_id {
            let id = der(SEQUENCE, &[&der(0x80, &[id])]);
            extensions.push(extension(&[0x55, 0x1d, 0x23], false, &id));
        }
        if let Some(names) = request.names() {
            extensions.push(extension(&[0x55, 0x1d, 0x11], !request.has_subject(), &names));
        }
        extensions
    }
}

/// When a PEM certificate's time is over, in seconds since 1970.
///
/// # Errors
/// It is none.
pub fn expiry(pem: &[u8]) -> anyhow::Result<i64> {
    let der = CertificateDer::from_pem_slice(pem).context("cannot read the certificate")?;
    let (_, parsed) = X509Certificate::from_der(&der).context("cannot read the certificate")?;
    Ok(parsed.validity().not_after.timestamp())
}

/// A bit string without its last zeros, as DER wants named bits.
fn named_bits(bits: u16) -> Vec<u8> {
    let [first, second] = bits.to_be_bytes();
    #[expect(clippy::cast_possible_truncation, reason = "at most 15")]
    let unused = bits.trailing_zeros() as u8;
    if unused >= 8 {
        der(BIT_STRING, &[&[unused - 8, first]])
    } else {
        der(BIT_STRING, &[&[unused, first, second]])
    }
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der(BOOLEAN, &[&[0xff]]) } else { Vec::new() };
    der(SEQUENCE, &[&der(0x06, &[oid]), &critical, &der(OCTET_STRING, &[value])])
}

fn time(seconds: i64) -> anyhow::Result<Vec<u8>> {
    let at = jiff::Timestamp::from_second(seconds)?.to_zoned(jiff::tz::TimeZone::UTC);
    Ok(if at.year() < YEAR_OF_LONG_TIMES {
        der(UTC_TIME, &[at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes()])
    } else {
        der(GENERALIZED_TIME, &[at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes()])
    })
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl SigningKey {
    fn x509_algorithm(&self) -> Vec<u8> {
        match self.public().algorithm() {
            "ES256" => der(SEQUENCE, &[der::OID_ECDSA_SHA256]),
            _ => der(SEQUENCE, &[der::OID_RSA_SHA256, der::NULL]),
        }
    }

    /// The signature as certificates hold it.
    fn sign_x509(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        let signature = self.sign(message)?;
        Ok(match self.public().algorithm() {
            "ES256" => {
                let (r, s) = signature.split_at(signature.len() / 2);
                der(SEQUENCE, &[&integer(r), &integer(s)])
            }
            _ => signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, IsCa, KeyPair, SanType};

    fn authority(folder: &Path) -> (Authority, CertificateDer<'static>) {
        let key = KeyPair::generate().expect("key");
        let mut of = CertificateParams::default();
        of.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        of.distinguished_name.push(DnType::CommonName, "ca");
        of.not_after = rcgen::date_time_ymd(2040, 1, 1);
        let own = of.self_signed(&key).expect("certificate");
        std::fs::write(folder.join("ca.crt"), own.pem()).expect("written");
        std::fs::write(folder.join("ca.key"), key.serialize_pem()).expect("written");
        let authority = Authority::from_files(&folder.join("ca.crt"), &folder.join("ca.key"));
        (authority.expect("authority"), own.der().clone())
    }

    fn asked() -> String {
        let mut of = CertificateParams::new(vec!["a.example.com".to_owned()]).expect("params");
        of.distinguished_name.push(DnType::CommonName, "system:node:n1");
        of.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        of.subject_alt_names.push(SanType::IpAddress("10.0.0.1".parse().expect("ip")));
        of.serialize_request(&KeyPair::generate().expect("key")).expect("request").pem().expect("pem")
    }

    #[test]
    fn an_issued_certificate_is_accepted_for_what_it_is_for_and_no_longer_than_its_ca() {
        let folder = tempfile::tempdir().expect("folder");
        let (authority, ca) = authority(folder.path());
        let request = Request::read(asked().as_bytes()).expect("request");
        assert_eq!(
            (request.common_name.as_str(), request.organizations.as_slice()),
            ("system:node:n1", ["system:nodes".to_owned()].as_slice())
        );
        assert_eq!((request.dns.len(), request.ips.len()), (1, 1));
        let now: jiff::Timestamp = "2030-01-01T00:00:00Z".parse().expect("time");
        let usages = ["client auth", "digital signature", "key encipherment"]
            .map(|name| Usage::named(name).expect("usage"));
        let pem = authority.issue(&request, &usages, now, 100 * 365 * 86400).expect("issued");
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).expect("pem");
        let (_, parsed) = X509Certificate::from_der(&leaf).expect("certificate");
        assert_eq!(parsed.validity().not_after.to_datetime().year(), 2040);
        assert_eq!(parsed.validity().not_before.timestamp(), now.as_second() - 300);
        assert!(!parsed.is_ca() && parsed.subject().iter_organization().count() == 1);
        let usage = parsed.key_usage().expect("one").expect("some").value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let names = parsed.subject_alternative_name().expect("one").expect("some").value;
        assert_eq!(names.general_names.len(), 2);
        // As TLS judges it.
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca).expect("root");
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .expect("verifier");
        let at = |seconds: u64| {
            rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
        };
        let then = u64::try_from(now.as_second()).expect("time");
        verifier.verify_client_cert(&leaf, &[], at(then)).expect("accepted");
        assert!(verifier.verify_client_cert(&leaf, &[], at(then - 400)).is_err());
        let server_only = authority.issue(&request, &[Usage::Extended(1)], now, 600).expect("issued");
        let server_only = CertificateDer::from_pem_slice(server_only.as_bytes()).expect("pem");
        assert!(verifier.verify_client_cert(&server_only, &[], at(then)).is_err());
    }

    #[test]
    fn a_request_that_its_key_has_not_signed_is_refused() {
        let der = CertificateSigningRequestDer::from_pem_slice(asked().as_bytes()).expect("pem").to_vec();
        let mut forged = der.clone();
        let at = der
            .windows(3)
            .position(|part| part == b"n1\x31")
            .or_else(|| der.windows(2).position(|part| part == b"n1"))
            .expect("name");
        forged[at + 1] = b'2';
        let error = Request::read(pem("CERTIFICATE REQUEST", &forged).as_bytes()).expect_err("forged");
        assert!(error.to_string().contains("signature"), "{error}");
        assert!(Request::read(b"junk").is_err());
    }
}
