//! Certificates: one CA with an identity for each component, and one for the front proxy; made once and kept.

use crate::layout::Layout;
use crate::spec::Spec;
use anyhow::{Context, Result};
use coracle_daemon::clock;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

const CA_YEARS: i32 = 10;
const LEAF_YEARS: i32 = 2;

/// A certificate to be: file name, subject, names it serves under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// File name without ending.
    pub file: String,
    /// CN: the user's name in Kubernetes.
    pub common_name: String,
    /// O: the user's group.
    pub organization: Option<String>,
    /// DNS names; empty for pure clients.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
}

/// The CA of the certificate that apiservers show to aggregated servers. It signs nothing else: whoever has a certificate of
/// it may say who asks.
pub const FRONT_PROXY_CA: &str = "front-proxy-ca";
/// File name and common name of that certificate.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// All certificates of a cluster that its CA signs.
#[must_use]
pub fn leaves(spec: &Spec) -> Vec<Leaf> {
    let leaf = |file: &str, common_name: &str, organization: Option<&str>| Leaf {
        file: file.to_owned(),
        common_name: common_name.to_owned(),
        organization: organization.map(str::to_owned),
        dns: Vec::new(),
        ips: Vec::new(),
    };
    let here = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(spec.bridge_address())];
    let mut apiserver = leaf("apiserver", "kube-apiserver", None);
    apiserver.dns = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ]
    .map(str::to_owned)
    .to_vec();
    apiserver.ips = here.into_iter().chain([IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1))]).collect();
    let mut store = leaf("store", "store", None);
    store.dns = vec!["localhost".to_owned()];
    store.ips = vec![here[0]];
    let mut all = vec![
        leaf("admin", "kubernetes-admin", Some("system:masters")),
        apiserver,
        store,
        leaf("apiserver-etcd-client", "apiserver-etcd-client", None),
        leaf("apiserver-kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters")),
        leaf("scheduler", "system:kube-scheduler", None),
        leaf("controllers", "system:kube-controller-manager", None),
    ];
    if spec.nodes > 0 {
        all.push(leaf("proxy", "system:kube-proxy", None));
        all.push(leaf("dns", "coracle:dns", None));
    }
    if spec.simulated_nodes > 0 {
        let mut simulator = leaf("simulator", "coracle:simulator", None);
        simulator.ips = here.to_vec();
        all.push(simulator);
    }
    for i in 0..spec.nodes {
        let name = spec.node_name(i);
        let mut kubelet = leaf(&name, &format!("system:node:{name}"), Some("system:nodes"));
        kubelet.dns = vec![name];
        kubelet.ips = vec![IpAddr::V4(spec.node_address(i))];
        all.push(kubelet);
    }
    all
}

/// Makes what is missing of the cluster's certificates and keys; existing files stay as they are.
///
/// # Errors
/// The folder cannot be written, or an existing CA cannot be read.
pub fn ensure(layout: &Layout, spec: &Spec) -> Result<()> {
    private_dir(&layout.pki())?;
    let issuer = certificate_authority(layout, "ca", "coracle-ca")?;
    for leaf in leaves(spec) {
        issue(layout, &leaf, &issuer)?;
    }
    let front_proxy = Leaf {
        file: FRONT_PROXY.to_owned(),
        common_name: FRONT_PROXY.to_owned(),
        organization: None,
        dns: Vec::new(),
        ips: Vec::new(),
    };
    issue(layout, &front_proxy, &certificate_authority(layout, FRONT_PROXY_CA, FRONT_PROXY_CA)?)?;
    if !layout.key("service-account").exists() {
        let key = KeyPair::generate().context("cannot make the ServiceAccount key")?;
        write_private(&layout.pki().join("service-account.pub"), key.public_key_pem().as_bytes())?;
        write_private(&layout.key("service-account"), key.serialize_pem().as_bytes())?;
    }
    Ok(())
}

/// Makes a certificate unless it is there.
fn issue(layout: &Layout, leaf: &Leaf, issuer: &Issuer<'static, KeyPair>) -> Result<()> {
    if layout.cert(&leaf.file).exists() && layout.key(&leaf.file).exists() {
        return Ok(());
    }
    let key = KeyPair::generate().context("cannot make a key")?;
    let certificate = params(leaf)?
        .signed_by(&key, issuer)
        .with_context(|| format!("cannot sign the certificate {}", leaf.file))?;
    write_private(&layout.key(&leaf.file), key.serialize_pem().as_bytes())?;
    write_private(&layout.cert(&leaf.file), certificate.pem().as_bytes())
}

fn certificate_authority(layout: &Layout, file: &str, common_name: &str) -> Result<Issuer<'static, KeyPair>> {
    let (cert, key) = (layout.cert(file), layout.key(file));
    if cert.exists() && key.exists() {
        let key = KeyPair::from_pem(
            &fs::read_to_string(&key).with_context(|| format!("cannot read {}", key.display()))?,
        )
        .context("the CA's key is damaged")?;
        let pem = fs::read_to_string(&cert).with_context(|| format!("cannot read {}", cert.display()))?;
        return Issuer::from_ca_cert_pem(&pem, key).context("the CA's certificate is damaged");
    }
    let mut params = CertificateParams::new(Vec::new()).context("cannot describe the CA")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, CA_YEARS);
    let pair = KeyPair::generate().context("cannot make the CA's key")?;
    let certificate = params.self_signed(&pair).context("cannot sign the CA's certificate")?;
    write_private(&key, pair.serialize_pem().as_bytes())?;
    write_private(&cert, certificate.pem().as_bytes())?;
    Ok(Issuer::new(params, pair))
}

fn params(leaf: &Leaf) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(leaf.dns.clone())
        .with_context(|| format!("{} has a bad DNS name", leaf.file))?;
    params.subject_alt_names.extend(leaf.ips.iter().map(|ip| SanType::IpAddress(*ip)));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, leaf.common_name.as_str());
    if let Some(organization) = &leaf.organization {
        params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !leaf.dns.is_empty() || !leaf.ips.is_empty() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    valid_for(&mut params, LEAF_YEARS);
    Ok(params)
}

/// From yesterday, so that a clock that lags a little still accepts it.
fn valid_for(params: &mut CertificateParams, years: i32) {
    let day = |at: jiff::Timestamp, plus: i32| {
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        // The 29th of February does not exist in every year.
        let day = date.day().min(28).unsigned_abs();
        rcgen::date_time_ymd(i32::from(date.year()) + plus, date.month().unsigned_abs(), day)
    };
    let now = clock::now();
    let yesterday = now.checked_sub(jiff::SignedDuration::from_hours(24)).unwrap_or(now);
    params.not_before = day(yesterday, 0);
    params.not_after = day(now, years);
}

/// Makes a folder that only its owner may enter.
///
/// # Errors
/// It cannot be made.
pub fn private_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the folder {}: choose another with --dir", path.display()))
}

/// Writes a file of mode 0600, whole or not at all.
///
/// # Errors
/// It cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let part = path.with_extension("part");
        let mut file =
            fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn spec() -> Spec {
        Spec {
            name: "t".into(),
            stores: 1,
            apiservers: 1,
            nodes: 1,
            simulated_nodes: 1,
            base_port: 6443,
            subnet: 0,
            etcd: None,
        }
    }

    #[test]
    fn keys_are_private_and_kept_on_a_second_run() {
        let dir = tempfile::tempdir().expect("temp dir");
        let layout = Layout::at(dir.path());
        ensure(&layout, &spec()).expect("made");
        let before = fs::read(layout.cert("admin")).expect("cert");
        assert_eq!(fs::metadata(layout.key("admin")).expect("key").permissions().mode() & 0o777, 0o600);
        ensure(&layout, &spec()).expect("kept");
        assert_eq!(before, fs::read(layout.cert("admin")).expect("cert"));
    }

    #[test]
    fn the_front_proxys_certificate_is_of_a_ca_that_nobody_else_is_of() {
        let dir = tempfile::tempdir().expect("temp dir");
        let layout = Layout::at(dir.path());
        ensure(&layout, &spec()).expect("made");
        let text = |path: std::path::PathBuf| fs::read_to_string(path).expect("pem");
        assert_ne!(text(layout.cert("ca")), text(layout.cert(FRONT_PROXY_CA)));
        assert!(layout.key(FRONT_PROXY).exists());
        assert!(leaves(&spec()).iter().all(|leaf| leaf.file != FRONT_PROXY));
    }

    #[test]
    fn a_node_serves_under_its_name_and_address() {
        let leaf = leaves(&spec()).into_iter().find(|leaf| leaf.file == "t-node-0").expect("node");
        assert_eq!(leaf.common_name, "system:node:t-node-0");
        assert_eq!(leaf.ips, [IpAddr::V4(Ipv4Addr::new(10, 89, 0, 10))]);
    }
}
