//! Ports of the node that lead to a pod (`hostPort`): one nftables table, made anew of what all sandboxes say.
//!
//! A pod's own loopback is never meant: on the node's, packets for 127.0.0.1 may leave for a pod, and none may come in.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The table, in family `ip`.
const TABLE: &str = "coracle-hostports";
/// Lets what is sent to 127.0.0.1 leave for a pod.
pub const ROUTE_LOCALNET: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";

/// A port of the node that a container listens behind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The node's address; `None` is each of them.
    pub address: Option<Ipv4Addr>,
    /// The node's port.
    pub port: u16,
    /// The container's.
    pub container_port: u16,
}

/// The script that makes the table say what these pods ask for.
pub fn script<'a>(pods: impl Iterator<Item = (Ipv4Addr, &'a HostPort)>) -> String {
    let (mut one, mut every, mut selves) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for (pod, asked) in pods {
        let HostPort { protocol, address, port, container_port } = asked;
        let to = format!("{pod} . {container_port}");
        // Who came first stays: admission lets no two in that want the same.
        match address {
            Some(address) => one.entry(format!("{address} . {protocol} . {port}")).or_insert(to),
            None => every.entry(format!("{protocol} . {port}")).or_insert(to),
        };
        selves.insert(format!("{pod} . {pod}"));
    }
    let mut script = format!("table ip {TABLE} {{}}\ndelete table ip {TABLE}\n");
    if selves.is_empty() {
        return script;
    }
    let pairs = |map: &BTreeMap<String, String>| {
        let pairs: Vec<_> = map.iter().map(|(from, to)| format!("{from} : {to}")).collect();
        elements(&pairs)
    };
    let (one, every) = (pairs(&one), pairs(&every));
    let selves = elements(&selves.into_iter().collect::<Vec<_>>());
    script.push_str(&format!(
        "table ip {TABLE} {{
 map one {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;{one} }}
 map every {{ type inet_proto . inet_service : ipv4_addr . inet_service;{every} }}
 set selves {{ type ipv4_addr . ipv4_addr;{selves} }}
 chain dispatch {{
  dnat ip to ip daddr . ip protocol . th dport map @one
  ip daddr != 127.0.0.0/8 dnat ip to ip protocol . th dport map @every
 }}
 chain guard {{
  type filter hook prerouting priority raw
  iifname != \"lo\" ip daddr 127.0.0.0/8 drop
  iifname != \"lo\" ip saddr 127.0.0.0/8 drop
 }}
 chain prerouting {{ type nat hook prerouting priority dstnat; fib daddr type local jump dispatch; }}
 chain output {{ type nat hook output priority -100; fib daddr type local jump dispatch; }}
 chain postrouting {{
  type nat hook postrouting priority srcnat
  ct status dnat ip saddr 127.0.0.0/8 oifname != \"lo\" masquerade
  ct status dnat ip saddr . ip daddr @selves masquerade
 }}
}}\n"
    ));
    script
}

fn elements(all: &[String]) -> String {
    if all.is_empty() { String::new() } else { format!(" elements = {{ {} }}", all.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_leads_to_the_first_pod_that_asked_for_it() {
        let port = |address: Option<[u8; 4]>, protocol: &str| HostPort {
            protocol: protocol.to_owned(),
            address: address.map(Ipv4Addr::from),
            port: 8080,
            container_port: 80,
        };
        let (all, local, udp) = (port(None, "tcp"), port(Some([127, 0, 0, 1]), "tcp"), port(None, "udp"));
        let pods = [
            ([10, 244, 0, 2], &all),
            ([10, 244, 0, 3], &local),
            ([10, 244, 0, 3], &udp),
            ([10, 244, 0, 4], &all),
        ];
        let script = script(pods.into_iter().map(|(pod, port)| (pod.into(), port)));
        assert!(script.contains("elements = { 127.0.0.1 . tcp . 8080 : 10.244.0.3 . 80 }"), "{script}");
        assert!(
            script.contains("elements = { tcp . 8080 : 10.244.0.2 . 80, udp . 8080 : 10.244.0.3 . 80 }"),
            "{script}"
        );
    }

    #[test]
    fn without_ports_there_is_no_table() {
        assert_eq!(
            script(std::iter::empty()),
            "table ip coracle-hostports {}\ndelete table ip coracle-hostports\n"
        );
    }
}
