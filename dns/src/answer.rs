//! One question in, one answer out: the Kubernetes DNS specification 1.1 over a [`Zone`]. Pure.
//!
//! Where the specification is silent, answers are those of the CoreDNS that Kubernetes installs. Names exist together with
//! all their ancestors: a name with nothing of the asked type, or only with names below it, is answered with no data; a
//! name that is not there with NXDOMAIN; both carry the SOA, so that resolvers may keep the answer.

use crate::zone::{Endpoint, Entry, Kind, Port, Zone};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Seconds that a resolver may keep an answer.
pub const TTL: u32 = 5;
/// What the specification calls itself.
const VERSION: &str = "1.1.0";

/// What is known of a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The cluster's own answer.
    Own(Records),
    /// The name is no business of the cluster's: ask upstream.
    Upstream,
}

/// The sections of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Records {
    /// NXDOMAIN or no error.
    pub code: ResponseCode,
    /// Records of the asked name.
    pub answers: Vec<Record>,
    /// The SOA of an empty answer.
    pub authority: Vec<Record>,
    /// Addresses of the targets.
    pub additional: Vec<Record>,
    /// Where an alias leads, for an asker who wants what is there.
    pub alias: Option<Name>,
}

/// What a name holds, before the type of the question is looked at.
enum Found<'a> {
    /// Nothing, nor any name below it.
    Nothing,
    /// Nothing, and names below it.
    Above,
    /// These addresses, and these ports with the names of who serves them.
    Addresses(Vec<IpAddr>, Vec<(Port, Name, IpAddr)>),
    /// An alias.
    Alias(&'a Name),
    /// These.
    Data(Vec<RData>),
}

/// Answers a question about `name`, whose case is kept.
#[must_use]
pub fn answer(zone: &Zone, name: &Name, kind: RecordType) -> Answer {
    let found = if zone.domain().zone_of(name) {
        find(zone, name)
    } else {
        match reverse(zone, name) {
            Some(found) => found,
            None => return Answer::Upstream,
        }
    };
    let record = |data| Record::from_rdata(name.clone(), TTL, data);
    let mut records = Records {
        code: ResponseCode::NoError,
        answers: Vec::new(),
        authority: Vec::new(),
        additional: Vec::new(),
        alias: None,
    };
    match found {
        Found::Nothing => records.code = ResponseCode::NXDomain,
        Found::Above => {}
        Found::Alias(target) => {
            records.answers.push(record(RData::CNAME(CNAME(target.clone()))));
            records.alias = (kind != RecordType::CNAME).then(|| target.clone());
        }
        Found::Data(data) => {
            let wanted =
                data.into_iter().filter(|data| kind == RecordType::ANY || data.record_type() == kind);
            records.answers.extend(wanted.map(record));
        }
        Found::Addresses(_, ports) if kind == RecordType::SRV => {
            let weight = u16::try_from(100 / ports.len().max(1)).unwrap_or(1).max(1);
            for (port, target, address) in ports {
                records.answers.push(record(RData::SRV(SRV::new(0, weight, port.port, target.clone()))));
                let address = Record::from_rdata(target, TTL, address_data(address));
                if !records.additional.contains(&address) {
                    records.additional.push(address);
                }
            }
        }
        Found::Addresses(addresses, _) => {
            let data = addresses.into_iter().map(address_data);
            let wanted = data.filter(|data| kind == RecordType::ANY || data.record_type() == kind);
            records.answers.extend(wanted.map(record));
        }
    }
    if records.answers.is_empty() {
        let apex = zone.domain().clone();
        records.authority.push(Record::from_rdata(apex, TTL, RData::SOA(soa(zone))));
    }
    Answer::Own(records)
}

fn find<'a>(zone: &'a Zone, name: &Name) -> Found<'a> {
    let below = name.iter().count().saturating_sub(zone.domain().iter().count());
    let labels: Vec<String> =
        name.iter().take(below).map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let above = |exists| if exists { Found::Above } else { Found::Nothing };
    match labels[..] {
        [] => Found::Data(vec![RData::SOA(soa(zone)), RData::NS(NS(server(zone)))]),
        ["svc" | "pod" | "dns"] => Found::Above,
        ["dns-version"] => Found::Data(vec![RData::TXT(TXT::new(vec![VERSION.to_owned()]))]),
        ["ns", "dns"] => match zone.service("kube-system", "kube-dns").map(|entry| &entry.kind) {
            Some(Kind::Virtual { addresses, .. }) => Found::Addresses(addresses.clone(), Vec::new()),
            _ => Found::Above,
        },
        [namespace, "svc" | "pod"] => above(zone.has_namespace(namespace)),
        [address, namespace, "pod"] if zone.has_namespace(namespace) => match undashed(address) {
            Some(address) => Found::Addresses(vec![address], Vec::new()),
            None => Found::Nothing,
        },
        [service, namespace, "svc"] => match zone.service(namespace, service) {
            Some(entry) => by_service(zone, entry, namespace, service, |_| true),
            None => Found::Nothing,
        },
        [label, service, namespace, "svc"] => match zone.service(namespace, service) {
            Some(entry) => by_label(zone, entry, namespace, service, label),
            None => Found::Nothing,
        },
        [port, protocol, service, namespace, "svc"] => {
            let wanted = port.strip_prefix('_').zip(protocol.strip_prefix('_'));
            match zone.service(namespace, service).zip(wanted) {
                Some((entry, (port, protocol))) if !matches!(entry.kind, Kind::External(_)) => {
                    let is_it = |p: &Port| !port.is_empty() && p.name == port && p.protocol == protocol;
                    match by_service(zone, entry, namespace, service, is_it) {
                        Found::Addresses(_, ports) if ports.is_empty() => Found::Nothing,
                        found => found,
                    }
                }
                _ => Found::Nothing,
            }
        }
        _ => Found::Nothing,
    }
}

/// What a Service's own name holds, with those of its ports that are `wanted`.
fn by_service<'a>(
    zone: &Zone,
    entry: &'a Entry,
    namespace: &str,
    service: &str,
    wanted: impl Fn(&Port) -> bool,
) -> Found<'a> {
    match &entry.kind {
        Kind::External(Some(target)) => Found::Alias(target),
        Kind::External(None) => Found::Above,
        Kind::Virtual { addresses, ports } => {
            let Some(target) = service_name(zone, namespace, service) else { return Found::Nothing };
            let first = addresses.first().copied();
            let ports = ports.iter().filter(|port| wanted(port));
            let served = ports.filter_map(|port| first.map(|first| (port.clone(), target.clone(), first)));
            Found::Addresses(addresses.clone(), served.collect())
        }
        Kind::Headless => {
            let mut addresses: Vec<IpAddr> = Vec::new();
            let mut served = Vec::new();
            for endpoint in &entry.endpoints {
                let ports = endpoint.ports.iter().filter(|port| wanted(port));
                let target = endpoint_name(zone, namespace, service, endpoint);
                served
                    .extend(ports.filter_map(|port| Some((port.clone(), target.clone()?, endpoint.address))));
                // One address may stand in several slices, for different ports.
                if addresses.last() != Some(&endpoint.address) {
                    addresses.push(endpoint.address);
                }
            }
            Found::Addresses(addresses, served)
        }
    }
}

/// `HOSTNAME.SERVICE…`, or `_tcp.SERVICE…`, which only has names below it.
fn by_label<'a>(zone: &Zone, entry: &Entry, namespace: &str, service: &str, label: &str) -> Found<'a> {
    if let Some(protocol) = label.strip_prefix('_') {
        let is_it = |port: &Port| !port.name.is_empty() && port.protocol == protocol;
        return match by_service(zone, entry, namespace, service, is_it) {
            Found::Addresses(_, ports) if !ports.is_empty() => Found::Above,
            _ => Found::Nothing,
        };
    }
    let (mut addresses, mut served) = (Vec::new(), Vec::new());
    for endpoint in entry.endpoints.iter().filter(|endpoint| endpoint.hostname == label) {
        let target = endpoint_name(zone, namespace, service, endpoint);
        let ports = endpoint.ports.iter();
        served.extend(ports.filter_map(|port| Some((port.clone(), target.clone()?, endpoint.address))));
        if addresses.last() != Some(&endpoint.address) {
            addresses.push(endpoint.address);
        }
    }
    if addresses.is_empty() { Found::Nothing } else { Found::Addresses(addresses, served) }
}

/// The names of an address, when the cluster gave it one.
fn reverse<'a>(zone: &'a Zone, name: &Name) -> Option<Found<'a>> {
    let network = name.parse_arpa_name().ok()?;
    if network.prefix_len() != network.max_prefix_len() {
        return None;
    }
    let address = network.addr();
    let mut names = Vec::new();
    for ((namespace, service), entry) in zone.owners(address) {
        let headless = entry.kind == Kind::Headless;
        if matches!(&entry.kind, Kind::Virtual { addresses, .. } if addresses.contains(&address)) {
            names.extend(service_name(zone, namespace, service));
        }
        let here = entry.endpoints.iter().filter(|endpoint| endpoint.address == address);
        names.extend(
            here.filter(|endpoint| headless || endpoint.named)
                .filter_map(|endpoint| endpoint_name(zone, namespace, service, endpoint)),
        );
    }
    names.dedup();
    let names: Vec<RData> = names.into_iter().map(|name| RData::PTR(PTR(name))).collect();
    (!names.is_empty()).then_some(Found::Data(names))
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// `10-244-0-5` as an address; IPv6 has dashes for colons.
fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    v4.or_else(|| label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}

/// `None` for labels that DNS cannot carry, which the API does not let through.
fn under(zone: &Zone, labels: &[&str]) -> Option<Name> {
    Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()?.append_domain(zone.domain()).ok()
}

fn service_name(zone: &Zone, namespace: &str, service: &str) -> Option<Name> {
    under(zone, &[service, namespace, "svc"])
}

fn endpoint_name(zone: &Zone, namespace: &str, service: &str, endpoint: &Endpoint) -> Option<Name> {
    under(zone, &[&endpoint.hostname, service, namespace, "svc"])
}

fn server(zone: &Zone) -> Name {
    under(zone, &["ns", "dns"]).unwrap_or_else(|| zone.domain().clone())
}

fn soa(zone: &Zone) -> SOA {
    let keeper = under(zone, &["hostmaster"]).unwrap_or_else(|| zone.domain().clone());
    SOA::new(server(zone), keeper, zone.serial(), 7200, 1800, 86400, TTL)
}
