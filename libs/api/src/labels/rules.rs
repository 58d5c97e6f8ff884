//! One function for each rule of the syntax.

use super::{
    DNS_LABEL_MAX, DNS_SUBDOMAIN_MAX, framed, label_shape, max_length_text, name_shape, regex_text,
    subdomain_shape,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an empty text is told.
pub const EMPTY: &str = "must be non-empty";

/// A lower-case DNS label: names of namespaces, containers, volumes.
#[must_use]
pub fn is_dns1123_label(text: &str) -> Vec<String> {
    check(text, DNS_LABEL_MAX, label_shape, || {
        if subdomain_shape(text) {
            return "must not contain dots".to_owned();
        }
        regex_text(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
             and end with an alphanumeric character",
            "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "123-abc"],
        )
    })
}

/// Dotted lower-case labels: names of most objects.
#[must_use]
pub fn is_dns1123_subdomain(text: &str) -> Vec<String> {
    check(text, DNS_SUBDOMAIN_MAX, subdomain_shape, || {
        regex_text(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
             must start and end with an alphanumeric character",
            "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        )
    })
}

/// The same with underscores, which some zones hold: search paths of pods.
#[must_use]
pub fn is_dns1123_subdomain_with_underscore(text: &str) -> Vec<String> {
    let label = |text: &str| {
        let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        framed(text.strip_prefix('_').unwrap_or(text), edge, |byte| matches!(byte, b'-' | b'_'))
    };
    check(
        text,
        DNS_SUBDOMAIN_MAX,
        |text| text.split('.').all(label),
        || {
            regex_text(
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', \
                 and must start and end with an alphanumeric character",
                // Kubernetes tells that of names without underscores.
                "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
                &["example.com"],
            )
        },
    )
}

/// A DNS label that starts with a letter: names of Services.
#[must_use]
pub fn is_dns1035_label(text: &str) -> Vec<String> {
    let shape = |text: &str| label_shape(text) && text.as_bytes()[0].is_ascii_lowercase();
    check(text, DNS_LABEL_MAX, shape, || {
        regex_text(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        )
    })
}

/// `*.` and a subdomain: hosts of Ingresses.
#[must_use]
pub fn is_wildcard_dns1123_subdomain(text: &str) -> Vec<String> {
    let shape = |text: &str| text.strip_prefix("*.").is_some_and(subdomain_shape);
    check(text, DNS_SUBDOMAIN_MAX, shape, || {
        regex_text(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
             consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            "\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["*.example.com"],
        )
    })
}

/// A key of labels and annotations, of finalizers and conditions: `name` or `prefix.example/name`.
#[must_use]
pub fn is_qualified_name(text: &str) -> Vec<String> {
    let regex = || {
        regex_text(
            "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character",
            "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]",
            &["MyName", "my.name", "123-abc"],
        )
    };
    let mut faults = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            let tail = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {} {tail}", regex())];
        }
        Some(("", name)) => {
            faults.push(format!("prefix part {EMPTY}"));
            name
        }
        Some((prefix, name)) => {
            faults.extend(is_dns1123_subdomain(prefix).iter().map(|fault| format!("prefix part {fault}")));
            name
        }
    };
    if name.is_empty() {
        faults.push(format!("name part {EMPTY}"));
    } else if name.len() > DNS_LABEL_MAX {
        faults.push(format!("name part {}", max_length_text(DNS_LABEL_MAX)));
    }
    if !name_shape(name) {
        faults.push(format!("name part {}", regex()));
    }
    faults
}

/// The value of a label.
#[must_use]
pub fn is_valid_label_value(text: &str) -> Vec<String> {
    check(
        text,
        DNS_LABEL_MAX,
        |text| text.is_empty() || name_shape(text),
        || {
            regex_text(
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
                "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
                &["MyValue", "my_value", "12345"],
            )
        },
    )
}

/// The name of a port.
#[must_use]
pub fn is_valid_port_name(text: &str) -> Vec<String> {
    let charset = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let rows = [
        (text.len() > 15, "must be no more than 15 characters"),
        (
            text.is_empty() || !text.bytes().all(charset),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (!text.bytes().any(|byte| byte.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (text.contains("--"), "must not contain consecutive hyphens"),
        (text.starts_with('-') || text.ends_with('-'), "must not begin or end with a hyphen"),
    ];
    rows.into_iter().filter(|(wrong, _)| *wrong).map(|(_, fault)| fault.to_owned()).collect()
}

/// The number of a port.
#[must_use]
pub fn is_valid_port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

/// `must be between LOW and HIGH, inclusive` unless it is.
#[must_use]
pub fn in_range(number: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&number) {
        Vec::new()
    } else {
        vec![format!("must be between {low} and {high}, inclusive")]
    }
}

/// A C identifier.
#[must_use]
pub fn is_c_identifier(text: &str) -> Vec<String> {
    let shape = |text: &str| {
        text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    check(text, usize::MAX, shape, || {
        regex_text(
            "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
             characters or '_'",
            "[A-Za-z_][A-Za-z0-9_]*",
            &["my_name", "MY_NAME", "MyName"],
        )
    })
}

/// The name of an environment variable (the relaxed rule, which holds since 1.32).
#[must_use]
pub fn is_env_var_name(text: &str) -> Vec<String> {
    let shape = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
    };
    check(text, usize::MAX, shape, || {
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .to_owned()
    })
}

/// A key of a ConfigMap or Secret.
#[must_use]
pub fn is_config_map_key(text: &str) -> Vec<String> {
    let shape = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
    };
    let mut faults = check(text, DNS_SUBDOMAIN_MAX, shape, || {
        regex_text(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        )
    });
    match text {
        "." => faults.push("must not be '.'".to_owned()),
        ".." => faults.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => faults.push("must not start with '..'".to_owned()),
        _ => {}
    }
    faults
}

/// The name of an HTTP header.
#[must_use]
pub fn is_http_header_name(text: &str) -> Vec<String> {
    let shape = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    check(text, usize::MAX, shape, || {
        regex_text(
            "a valid HTTP header must consist of alphanumeric characters or '-'",
            "[-A-Za-z0-9]+",
            &["X-Header-Name"],
        )
    })
}

/// A percentage such as `25%`.
#[must_use]
pub fn is_valid_percent(text: &str) -> Vec<String> {
    let shape = |text: &str| {
        text.strip_suffix('%')
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    check(text, usize::MAX, shape, || {
        regex_text(
            "a valid percent string must be a numeric string followed by an ending '%'",
            "[0-9]+%",
            &["1%", "93%"],
        )
    })
}

/// One segment of a URL path: names of roles and bindings.
#[must_use]
pub fn is_path_segment_name(text: &str) -> Vec<String> {
    match text {
        "." | ".." => return vec![format!("may not be '{text}'")],
        _ => {}
    }
    ["/", "%"]
        .into_iter()
        .filter(|bad| text.contains(bad))
        .map(|bad| format!("may not contain '{bad}'"))
        .collect()
}

/// An address as Go's lenient reader takes it: numbers may begin with zeros.
#[must_use]
pub fn lenient_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let mut parts = [0; 4];
    let mut count = 0;
    for part in text.split('.') {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        *parts.get_mut(count)? = digits.then(|| part.parse::<u8>().ok())??;
        count += 1;
    }
    (count == 4).then(|| IpAddr::V4(Ipv4Addr::from(parts)))
}

/// An address, v4 or v6.
#[must_use]
pub fn is_valid_ip(text: &str) -> Vec<String> {
    check(
        text,
        usize::MAX,
        |text| lenient_ip(text).is_some(),
        || "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned(),
    )
}

/// An address as it is written by everybody.
#[must_use]
pub fn is_canonical_ip(text: &str) -> Vec<String> {
    let Some(ip) = lenient_ip(text) else { return is_valid_ip(text) };
    if text.parse::<IpAddr>().is_err() {
        return vec!["must not have leading 0s".to_owned()];
    }
    if matches!(ip, IpAddr::V6(six) if six.to_ipv4_mapped().is_some()) {
        return vec!["must not be an IPv4-mapped IPv6 address".to_owned()];
    }
    canonical(text, &ip.to_string())
}

fn canonical(text: &str, shown: &str) -> Vec<String> {
    if shown == text { Vec::new() } else { vec![format!("must be in canonical form ({shown:?})")] }
}

/// A network, v4 or v6, as Go's lenient reader takes it.
fn lenient_net(text: &str) -> Option<ipnet::IpNet> {
    let (address, length) = text.split_once('/')?;
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    ipnet::IpNet::new(lenient_ip(address)?, digits.then(|| length.parse().ok())??).ok()
}

/// A network, v4 or v6.
#[must_use]
pub fn is_valid_cidr(text: &str) -> Vec<String> {
    check(
        text,
        usize::MAX,
        |text| lenient_net(text).is_some(),
        || "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned(),
    )
}

/// A network as it is written by everybody.
#[must_use]
pub fn is_canonical_cidr(text: &str) -> Vec<String> {
    let Some(net) = lenient_net(text) else { return is_valid_cidr(text) };
    let mapped = matches!(net.addr(), IpAddr::V6(six) if six.to_ipv4_mapped().is_some());
    let zeros = text.split_once('/').is_some_and(|(address, length)| {
        address.parse::<IpAddr>().is_err() || length.len() > 1 && length.starts_with('0')
    });
    let told = match (zeros, mapped) {
        (true, _) => "must not have leading 0s in IP or prefix length",
        (_, true) => "must not have an IPv4-mapped IPv6 address",
        _ if net.network() != net.addr() => "must not have bits set beyond the prefix length",
        _ => return canonical(text, &net.to_string()),
    };
    vec![told.to_owned()]
}

/// The reason of a condition, or several.
#[must_use]
pub fn is_condition_reason(text: &str) -> Vec<String> {
    let shape = |text: &str| {
        let bytes = text.as_bytes();
        bytes.first().is_some_and(u8::is_ascii_alphabetic)
            && bytes.last().is_some_and(|last| last.is_ascii_alphanumeric() || *last == b'_')
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_,:".contains(byte))
    };
    check(text, usize::MAX, shape, || {
        regex_text(
            "a condition reason must start with alphabetic character, optionally followed by a string of \
             alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'",
            "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
            &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
        )
    })
}

/// The path of a URL, as far as its characters go.
#[must_use]
pub fn is_http_path(text: &str) -> Vec<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    check(
        text,
        usize::MAX,
        |text| framed(text, allowed, |_| false),
        || regex_text("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[]),
    )
}

/// Too long comes first, then the shape.
fn check(text: &str, max: usize, shape: impl Fn(&str) -> bool, fault: impl Fn() -> String) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > max {
        faults.push(max_length_text(max));
    }
    if !shape(text) {
        faults.push(fault());
    }
    faults
}
