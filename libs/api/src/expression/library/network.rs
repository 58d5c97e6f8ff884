//! URLs, addresses and networks.

use super::super::value::{Fault, Key, Map, Value, told};
use super::{Cost, Opaque, Written};
use indexmap::IndexMap;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// A URL, or the path of one, as Go takes it apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
}

pub const TABLE: &[Written] = &[
    ("url", &["(string) url"], Cost::Scan, |args| match args {
        [Value::Text(text)] => match Url::parse(text) {
            Ok(url) => Ok(Value::Opaque(Arc::new(Opaque::Url(url)))),
            Err(why) => told(format!("URL parse error during conversion from string: {why}")),
        },
        _ => Err(Fault::NoOverload),
    }),
    ("isURL", &["(string) bool"], Cost::One, |args| match args {
        [Value::Text(text)] => Ok(Value::Bool(Url::parse(text).is_ok())),
        _ => Err(Fault::NoOverload),
    }),
    ("getScheme", &["url.() string"], Cost::One, |args| url(args, |url| url.scheme.clone())),
    ("getHost", &["url.() string"], Cost::One, |args| url(args, |url| url.host.clone())),
    ("getHostname", &["url.() string"], Cost::One, |args| url(args, |url| url.split_host().0.to_owned())),
    ("getPort", &["url.() string"], Cost::One, |args| url(args, |url| url.split_host().1.to_owned())),
    ("getEscapedPath", &["url.() string"], Cost::One, |args| url(args, |url| escaped_path(&url.path))),
    ("getQuery", &["url.() map(string, list(string))"], Cost::One, query),
    ("ip", &["(string) ip"], Cost::ScanUntold, |args| match args {
        [Value::Text(text)] => address(text).map(of_address).map_err(Fault::Told),
        _ => Err(Fault::NoOverload),
    }),
    ("isIP", &["(string) bool"], Cost::ScanUntold, |args| match args {
        [Value::Text(text)] => Ok(Value::Bool(address(text).is_ok())),
        _ => Err(Fault::NoOverload),
    }),
    ("ip.isCanonical", &["(string) bool"], Cost::ScanTwiceUntold, |args| match args {
        [Value::Text(text)] => {
            address(text).map(|address| Value::Bool(address.to_string() == **text)).map_err(Fault::Told)
        }
        _ => Err(Fault::NoOverload),
    }),
    ("string", &["(ip) string", "(cidr) string"], Cost::One, |args| match opaque(args)? {
        Opaque::Ip(address) => Ok(Value::text(address.to_string())),
        Opaque::Cidr(network) => Ok(Value::text(network.to_string())),
        _ => Err(Fault::NoOverload),
    }),
    ("family", &["ip.() int"], Cost::One, |args| match opaque(args)? {
        Opaque::Ip(address) => Ok(Value::Int(if address.is_ipv4() { 4 } else { 6 })),
        _ => Err(Fault::NoOverload),
    }),
    ("isUnspecified", &["ip.() bool"], Cost::One, |args| holds(args, IpAddr::is_unspecified)),
    ("isLoopback", &["ip.() bool"], Cost::One, |args| holds(args, IpAddr::is_loopback)),
    ("isLinkLocalMulticast", &["ip.() bool"], Cost::One, |args| holds(args, link_local_multicast)),
    ("isLinkLocalUnicast", &["ip.() bool"], Cost::One, |args| holds(args, link_local)),
    ("isGlobalUnicast", &["ip.() bool"], Cost::One, |args| holds(args, global)),
    ("cidr", &["(string) cidr"], Cost::ScanUntold, |args| match args {
        [Value::Text(text)] => {
            let network = network(text).map_err(Fault::Told)?;
            Ok(Value::Opaque(Arc::new(Opaque::Cidr(network))))
        }
        _ => Err(Fault::NoOverload),
    }),
    ("isCIDR", &["(string) bool"], Cost::ScanUntold, |args| match args {
        [Value::Text(text)] => Ok(Value::Bool(network(text).is_ok())),
        _ => Err(Fault::NoOverload),
    }),
    ("containsIP", &["cidr.(ip) bool"], Cost::InNetwork { network: false, text: false }, contains_ip),
    ("containsIP", &["cidr.(string) bool"], Cost::InNetwork { network: false, text: true }, contains_ip),
    ("containsCIDR", &["cidr.(cidr) bool"], Cost::InNetwork { network: true, text: false }, contains_cidr),
    ("containsCIDR", &["cidr.(string) bool"], Cost::InNetwork { network: true, text: true }, contains_cidr),
    ("ip", &["cidr.() ip"], Cost::One, |args| match opaque(args)? {
        Opaque::Cidr(network) => Ok(of_address(network.addr())),
        _ => Err(Fault::NoOverload),
    }),
    ("masked", &["cidr.() cidr"], Cost::One, |args| match opaque(args)? {
        Opaque::Cidr(network) => Ok(Value::Opaque(Arc::new(Opaque::Cidr(network.trunc())))),
        _ => Err(Fault::NoOverload),
    }),
    ("prefixLength", &["cidr.() int"], Cost::One, |args| match opaque(args)? {
        Opaque::Cidr(network) => Ok(Value::Int(i64::from(network.prefix_len()))),
        _ => Err(Fault::NoOverload),
    }),
];

fn opaque<'s, 'a>(args: &'s [Value<'a>]) -> Result<&'s Opaque<'a>, Fault> {
    match args.first() {
        Some(Value::Opaque(value)) => Ok(value),
        _ => Err(Fault::NoOverload),
    }
}

fn url<'a>(args: &[Value<'a>], part: fn(&Url) -> String) -> Result<Value<'a>, Fault> {
    match opaque(args)? {
        Opaque::Url(url) => Ok(Value::text(part(url))),
        _ => Err(Fault::NoOverload),
    }
}

fn query<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let Opaque::Url(url) = opaque(args)? else { return Err(Fault::NoOverload) };
    let mut all: IndexMap<String, Vec<Value<'a>>> = IndexMap::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = Value::text(unescaped(value, true));
        all.entry(unescaped(key, true)).or_default().push(value);
    }
    let entry = |(key, values): (String, Vec<Value<'a>>)| {
        let key: Arc<str> = key.into();
        (Key::Text(key.clone()), (Value::text(key), Value::list(values)))
    };
    Ok(Value::Map(Map::Own(Arc::new(all.into_iter().map(entry).collect()))))
}

impl Url {
    /// Takes a URL apart; it is absolute, or an absolute path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let failed = |why: String| format!("parse {text:?}: {why}");
        if text.is_empty() {
            return Err(failed("empty url".to_owned()));
        }
        if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return Err(failed("net/url: invalid control character in URL".to_owned()));
        }
        let (scheme, rest) = match text.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))) {
            Some(0) if text.starts_with(':') => return Err(failed("missing protocol scheme".to_owned())),
            Some(end)
                if end > 0
                    && text[end..].starts_with(':')
                    && !text.starts_with(|c: char| !c.is_ascii_alphabetic()) =>
            {
                (text[..end].to_ascii_lowercase(), &text[end + 1..])
            }
            _ => (String::new(), text),
        };
        if scheme.is_empty() && !rest.starts_with('/') {
            return Err(failed("invalid URI for request".to_owned()));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match rest.strip_prefix("//") {
            Some(after) if !scheme.is_empty() || !rest.starts_with("///") => {
                let end = after.find('/').unwrap_or(after.len());
                let authority = &after[..end];
                (authority.rsplit_once('@').map_or(authority, |(_, host)| host), &after[end..])
            }
            _ => ("", rest),
        };
        if host.contains(' ') {
            return Err(failed("invalid character \" \" in host name".to_owned()));
        }
        let url =
            Self { scheme, host: host.to_owned(), path: unescaped(path, false), query: query.to_owned() };
        let port = url.split_host().1;
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(failed(format!("invalid port {:?} after host", format!(":{port}"))));
        }
        if let Some(broken) = broken_escape(path) {
            return Err(failed(format!("invalid URL escape {broken:?}")));
        }
        Ok(url)
    }

    /// Host and port.
    fn split_host(&self) -> (&str, &str) {
        if let Some(rest) = self.host.strip_prefix('[') {
            let (host, after) = rest.split_once(']').unwrap_or((rest, ""));
            return (host, after.strip_prefix(':').unwrap_or_default());
        }
        self.host.rsplit_once(':').unwrap_or((&self.host, ""))
    }
}

fn broken_escape(text: &str) -> Option<&str> {
    let starts = text.match_indices('%').map(|(at, _)| &text[at..]);
    starts
        .filter(|rest| !rest.get(1..3).is_some_and(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit())))
        .map(|rest| rest.get(..3).unwrap_or(rest))
        .next()
}

fn unescaped(text: &str, plus: bool) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' if plus => out.push(b' '),
            b'%' => {
                let two: Vec<u8> = bytes.clone().take(2).collect();
                let code = std::str::from_utf8(&two).ok().and_then(|two| u8::from_str_radix(two, 16).ok());
                match code {
                    Some(code) if two.len() == 2 => {
                        out.push(code);
                        bytes.nth(1);
                    }
                    _ => out.push(b'%'),
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn escaped_path(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*".contains(&byte);
    path.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn of_address<'a>(address: IpAddr) -> Value<'a> {
    Value::Opaque(Arc::new(Opaque::Ip(address)))
}

fn address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| match text.contains('%') {
        true => format!("IP address {text:?} with zone value is not allowed"),
        false => format!("IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"),
    })?;
    match address {
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        other => Ok(other),
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let network: IpNet = text.parse().map_err(|_| {
        format!(
            "network address parse error during conversion from string: network address parse error during conversion from string: netip.ParsePrefix({text:?}): no '/'"
        )
    })?;
    match network {
        IpNet::V6(six) if six.addr().to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        other => Ok(other),
    }
}

fn holds<'a>(args: &[Value<'a>], of: fn(&IpAddr) -> bool) -> Result<Value<'a>, Fault> {
    match opaque(args)? {
        Opaque::Ip(address) => Ok(Value::Bool(of(address))),
        _ => Err(Fault::NoOverload),
    }
}

fn link_local_multicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.octets()[..3] == [224, 0, 0],
        IpAddr::V6(six) => six.segments()[0] & 0xff0f == 0xff02,
    }
}

fn link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.is_link_local(),
        IpAddr::V6(six) => six.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn global(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(four) if four.is_broadcast());
    !(broadcast
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || link_local(address))
}

fn contains_ip<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let Opaque::Cidr(network) = opaque(args)? else { return Err(Fault::NoOverload) };
    let inner = match args.get(1) {
        Some(Value::Text(text)) => address(text).map_err(Fault::Told)?,
        _ => match opaque(&args[1..])? {
            Opaque::Ip(address) => *address,
            _ => return Err(Fault::NoOverload),
        },
    };
    Ok(Value::Bool(network.contains(&inner)))
}

fn contains_cidr<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let Opaque::Cidr(outer) = opaque(args)? else { return Err(Fault::NoOverload) };
    let inner = match args.get(1) {
        Some(Value::Text(text)) => network(text).map_err(Fault::Told)?,
        _ => match opaque(&args[1..])? {
            Opaque::Cidr(network) => *network,
            _ => return Err(Fault::NoOverload),
        },
    };
    Ok(Value::Bool(outer.contains(&inner)))
}
