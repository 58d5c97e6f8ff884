//! How the server is served: its certificates, TLS versions and ciphers, HTTP/2, and its ports.

use anyhow::{Context, bail, ensure};
use coracle_daemon::tls::{self, Acceptor, ClientAuth, Identity, Listening};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpSocket};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

const BACKLOG: u32 = 1024;

/// Flags, named as kube-apiserver's.
#[derive(Clone, Debug, clap::Args)]
pub struct ServingArgs {
    /// PEM serving certificate; without, one of --cert-dir.
    #[arg(long, requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its PEM private key.
    #[arg(long, requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Folder of apiserver.crt and apiserver.key, which are made where there are none, where no files are named.
    #[arg(long, default_value = "/var/run/kubernetes")]
    pub cert_dir: PathBuf,
    /// More certificates, each with its key and, after a colon, the names it is for, e.g. a.crt,a.key:*.example.com.
    #[arg(long, value_name = "CERT,KEY[:NAMES]", value_parser = named)]
    pub tls_sni_cert_key: Vec<Named>,
    /// Lowest version of TLS: VersionTLS12 (lower ones mean that, too) or VersionTLS13.
    #[arg(long, default_value = "", value_name = "VERSION")]
    pub tls_min_version: String,
    /// Ciphers of TLS 1.2 that clients may choose; of those named, the ones that are safe.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub tls_cipher_suites: Vec<String>,
    /// Serve HTTP/1.1 only.
    #[arg(long, default_value = "false", value_parser = crate::flags::switch, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub disable_http2_serving: bool,
    /// Requests at once on a connection of HTTP/2; 0: 1000.
    #[arg(long, default_value_t = 0)]
    pub http2_max_streams_per_connection: u32,
    /// The part of requests of HTTP/2 after which a client must connect anew, to any server, e.g. 0.001.
    #[arg(long, default_value = "0", value_parser = chance)]
    pub goaway_chance: f64,
    /// Let other servers listen on the same port.
    #[arg(long, default_value = "false", value_parser = crate::flags::switch, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub permit_port_sharing: bool,
}

fn chance(text: &str) -> anyhow::Result<f64> {
    let chance: f64 =
        text.parse().with_context(|| format!("strconv.ParseFloat: parsing {text:?}: invalid syntax"))?;
    Ok(chance)
}

/// Names of Go's ciphers of TLS 1.2 and older that there are none of here: they are broken, or break what was said before.
const UNSAFE: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];
/// Go's names of those of TLS 1.3, which are always there, and older ones of two others.
const OTHER_NAMES: [(&str, &str); 5] = [
    ("TLS_AES_128_GCM_SHA256", "TLS13_AES_128_GCM_SHA256"),
    ("TLS_AES_256_GCM_SHA384", "TLS13_AES_256_GCM_SHA384"),
    ("TLS_CHACHA20_POLY1305_SHA256", "TLS13_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
];

impl ServingArgs {
    /// TLS as the flags say it; `names` and `addresses` are what a certificate is for that is made.
    ///
    /// # Errors
    /// A file cannot be used, or a name means nothing.
    pub fn acceptor(&self, clients: &[&Path], names: Vec<String>) -> anyhow::Result<Acceptor> {
        ensure!(
            (0.0..=0.02).contains(&self.goaway_chance),
            "--goaway-chance can not be less than 0 or greater than 0.02"
        );
        let identity = match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(cert), Some(key)) => Identity { cert: cert.clone(), key: key.clone() },
            _ => made(&self.cert_dir, names)?,
        };
        let alpn: &[&[u8]] = if self.disable_http2_serving { &[b"http/1.1"] } else { &[b"h2", b"http/1.1"] };
        let listening = Listening {
            clients: (!clients.is_empty()).then_some((clients, ClientAuth::Asked)),
            alpn,
            named: self.tls_sni_cert_key.iter().map(Named::read).collect::<anyhow::Result<_>>()?,
            ciphers: self.ciphers()?,
            only_1_3: self.only_1_3()?,
            ..Listening::new(&identity)
        };
        tls::listening(&listening).context("cannot set up TLS")
    }

    fn only_1_3(&self) -> anyhow::Result<bool> {
        match self.tls_min_version.as_str() {
            "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => Ok(false),
            "VersionTLS13" => Ok(true),
            other => bail!("unknown tls version {other:?}"),
        }
    }

    fn ciphers(&self) -> anyhow::Result<Option<Vec<String>>> {
        let given = self.tls_cipher_suites.iter().filter(|name| !name.is_empty());
        let mut found = Vec::new();
        for name in given {
            let known = OTHER_NAMES.iter().find(|(other, _)| other == name);
            let own = known.map_or(name.as_str(), |(_, own)| own);
            ensure!(
                tls::has_cipher(own) || UNSAFE.contains(&name.as_str()),
                "Cipher suite {name} not supported or doesn't exist"
            );
            found.push(own.to_owned());
        }
        Ok((!found.is_empty()).then_some(found))
    }

    /// Listens on an address.
    ///
    /// # Errors
    /// Somebody else does.
    pub fn listen(&self, at: SocketAddr) -> std::io::Result<TcpListener> {
        let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        if self.permit_port_sharing {
            socket.set_reuseport(true)?;
        }
        socket.bind(at)?;
        socket.listen(BACKLOG)
    }
}

/// A certificate, its key, and the names before which it is shown; its own where none are given.
#[derive(Clone, Debug)]
pub struct Named {
    identity: Identity,
    names: Vec<String>,
}

impl Named {
    fn read(&self) -> anyhow::Result<(Vec<String>, Identity)> {
        let names = if self.names.is_empty() { names_of(&self.identity.cert)? } else { self.names.clone() };
        Ok((names, self.identity.clone()))
    }
}

fn named(text: &str) -> anyhow::Result<Named> {
    let (files, names) = text.split_once(':').unwrap_or((text, ""));
    let Some((cert, key)) = files.split_once(',').filter(|(_, key)| !key.contains(',')) else {
        bail!("expected comma separated certificate and key file paths");
    };
    let identity = Identity { cert: PathBuf::from(cert), key: PathBuf::from(key) };
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(Named { identity, names })
}

/// The names that a certificate is for.
fn names_of(path: &Path) -> anyhow::Result<Vec<String>> {
    let read = || anyhow::Ok(CertificateDer::from_pem_file(path)?);
    let der = read().with_context(|| format!("cannot read {}", path.display()))?;
    let (_, parsed) = X509Certificate::from_der(&der).context("cannot read the certificate")?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|names| names.value.general_names.iter());
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect())
}

/// The folder's certificate; one that signed itself where there is none.
fn made(folder: &Path, names: Vec<String>) -> anyhow::Result<Identity> {
    let identity = Identity { cert: folder.join("apiserver.crt"), key: folder.join("apiserver.key") };
    if identity.cert.exists() && identity.key.exists() {
        return Ok(identity);
    }
    let mut of = rcgen::CertificateParams::new(names).context("cannot make a certificate")?;
    of.distinguished_name.push(rcgen::DnType::CommonName, "kube-apiserver");
    let pair = rcgen::KeyPair::generate().context("cannot make a key")?;
    let cert = of.self_signed(&pair).context("cannot make a certificate")?.pem();
    let key = pair.serialize_pem();
    let written = || {
        std::fs::create_dir_all(folder)?;
        std::fs::write(&identity.cert, cert)?;
        let mut file = std::fs::OpenOptions::new();
        let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(&identity.key)?;
        std::io::Write::write_all(&mut file, key.as_bytes())
    };
    written().with_context(|| format!("cannot write a certificate to --cert-dir {}", folder.display()))?;
    Ok(identity)
}

/// What a certificate that is made is for.
#[must_use]
pub fn names(addresses: &[IpAddr], host: &str) -> Vec<String> {
    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let mut all: Vec<String> = names.map(str::to_owned).to_vec();
    all.extend(addresses.iter().filter(|address| !address.is_unspecified()).map(ToString::to_string));
    if !host.is_empty() {
        all.push(host.split(':').next().unwrap_or(host).to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(flags: &[&str]) -> ServingArgs {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: ServingArgs,
        }
        <Cli as clap::Parser>::parse_from(["x"].iter().chain(flags)).args
    }

    #[test]
    fn ciphers_and_versions_have_gos_names() {
        let ciphers = |list: &str| {
            let told = serving(&[&format!("--tls-cipher-suites={list}")]).ciphers();
            told.map_err(|error| error.to_string())
        };
        let known =
            "TLS_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305";
        assert_eq!(ciphers(known).map(|found| found.map_or(0, |found| found.len())), Ok(3));
        assert_eq!(
            ciphers("TLS_NOPE"),
            Err("Cipher suite TLS_NOPE not supported or doesn't exist".to_owned())
        );
        assert_eq!(ciphers(""), Ok(None));
        let least = |version: &str| {
            serving(&["--tls-min-version", version]).only_1_3().map_err(|error| error.to_string())
        };
        assert_eq!((least("VersionTLS11"), least("VersionTLS13")), (Ok(false), Ok(true)));
        assert_eq!(least("1.2"), Err("unknown tls version \"1.2\"".to_owned()));
    }

    #[test]
    fn a_certificate_is_made_once_where_none_is_given() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        let args = serving(&["--cert-dir", &folder.path().join("own").display().to_string()]);
        let names = names(&[IpAddr::from([10, 0, 0, 1]), IpAddr::from([0, 0, 0, 0])], "api.example:6443");
        assert!(args.acceptor(&[], names).is_ok());
        let path = folder.path().join("own/apiserver.crt");
        let made = std::fs::read(&path).expect("made");
        let told = names_of(&path).expect("names");
        assert_eq!(
            told,
            ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "api.example"]
        );
        assert!(args.acceptor(&[], Vec::new()).is_ok());
        assert_eq!(std::fs::read(&path).expect("kept"), made);
        assert_eq!(
            named("a").map(drop).map_err(|error| error.to_string()),
            Err("expected comma separated certificate and key file paths".to_owned())
        );
        let told = named("a.crt,a.key:*.x, y").expect("a pair");
        assert_eq!(told.names, ["*.x", "y"]);
        assert_eq!(told.identity.key, Path::new("a.key"));
    }
}
