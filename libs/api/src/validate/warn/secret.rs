//! Certificates and keys that no server could use, as Go's `tls.X509KeyPair` complains of them. Only whether there are PEM blocks
//! of the right kinds is looked at; whether key and certificate belong together is not.

use super::super::node::Node;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The types of the PEM blocks in base64 text.
fn blocks(data: &Node<'_, '_>) -> Vec<String> {
    let bytes = BASE64.decode(data.text()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let begun =
        text.lines().filter_map(|line| line.trim_end().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    let whole = begun.filter(|kind| text.contains(&format!("-----END {kind}-----")));
    whole.map(str::to_owned).collect()
}

/// Go's text for blocks among which the wanted one is not.
fn lacking(wanted: &str, place: &str, found: &[String]) -> String {
    format!(
        "tls: failed to find {wanted} in {place} input after skipping PEM blocks of the following types: [{}]",
        found.join(" ")
    )
}

fn certificate(found: &[String]) -> Option<String> {
    match found {
        [] => Some("tls: failed to find any PEM data in certificate input".to_owned()),
        _ if found.iter().any(|kind| kind == "CERTIFICATE") => None,
        [one] if one.ends_with("PRIVATE KEY") => Some(
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched"
                .to_owned(),
        ),
        _ => Some(lacking("\"CERTIFICATE\" PEM block", "certificate", found)),
    }
}

fn key(found: &[String]) -> Option<String> {
    match found {
        [] => Some("tls: failed to find any PEM data in key input".to_owned()),
        _ if found.iter().any(|kind| kind.ends_with("PRIVATE KEY")) => None,
        [one] if one == "CERTIFICATE" => {
            Some("tls: found a certificate rather than a key in the PEM for the private key".to_owned())
        }
        _ => Some(lacking("PEM block with type ending in \"PRIVATE KEY\"", "key", found)),
    }
}

/// One complaint at most, the certificate's first.
pub(super) fn key_pair(data: &Node<'_, '_>, out: &mut Vec<String>) {
    let of = |name: &str| blocks(&data.key(name));
    out.extend(certificate(&of("tls.crt")).or_else(|| key(&of("tls.key"))));
}

#[cfg(test)]
mod tests {
    use super::super::all;
    use super::*;
    use serde_json::json;

    #[test]
    fn pairs_that_no_server_could_use_are_warned_of_in_gos_words() {
        let block = |kind: &str| format!("-----BEGIN {kind}-----\nYQ==\n-----END {kind}-----\n");
        let (cert, key, odd) = (block("CERTIFICATE"), block("EC PRIVATE KEY"), block("ODD"));
        for (crt, own, wanted) in [
            (&*cert, &*key, None),
            (&*format!("{odd}{cert}"), &*format!("{odd}{key}"), None),
            ("a", "a", Some("tls: failed to find any PEM data in certificate input")),
            (
                &*cert,
                "-----BEGIN EC PRIVATE KEY-----\n",
                Some("tls: failed to find any PEM data in key input"),
            ),
            (
                &*key,
                &*cert,
                Some(
                    "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched",
                ),
            ),
            (
                &*cert,
                &*cert,
                Some("tls: found a certificate rather than a key in the PEM for the private key"),
            ),
            (
                &*odd,
                &*key,
                Some(
                    "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [ODD]",
                ),
            ),
            (
                &*cert,
                &*odd,
                Some(
                    "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [ODD]",
                ),
            ),
        ] {
            let data = json!({"tls.crt": BASE64.encode(crt), "tls.key": BASE64.encode(own)});
            let secret = json!({"type": "kubernetes.io/tls", "data": data});
            assert_eq!(all(&secret, None, "Secret"), wanted.into_iter().collect::<Vec<_>>(), "{crt} {own}");
        }
        assert_eq!(all(&json!({"type": "Opaque"}), None, "Secret"), Vec::<String>::new());
    }
}
