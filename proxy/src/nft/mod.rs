//! A ruleset in, an nftables script out: the whole table at the start, elements afterwards.
//!
//! The shape is flat: one verdict map finds the front's chain, of which there is one for each *number* of endpoints; that chain
//! draws a slot, and each slot has one map from fronts to endpoints. A change touches elements, never rules. Only fronts with
//! session affinity have chains of their own (`sticky.rs`), for their clients must be remembered by endpoint.

mod sticky;

use crate::ruleset::{Endpoint, Front, Ruleset, Target};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// The table, in family `ip`.
pub const TABLE: &str = "coracle-proxy";
/// Packets that must leave with the node's own address.
const MARK: &str = "0x4000";

/// Which pair of maps a front is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Address,
    NodePort,
}

impl Family {
    const ALL: [Self; 2] = [Self::Address, Self::NodePort];
    fn of(front: &Front) -> Self {
        match front {
            Front::Address(..) => Self::Address,
            Front::NodePort(..) => Self::NodePort,
        }
    }
    fn word(self) -> &'static str {
        match self {
            Self::Address => "service",
            Self::NodePort => "nodeport",
        }
    }
    /// The type of its key.
    fn key_type(self) -> &'static str {
        match self {
            Self::Address => "ipv4_addr . inet_proto . inet_service",
            Self::NodePort => "inet_proto . inet_service",
        }
    }
    /// The expressions that make up its key.
    fn key(self) -> &'static str {
        match self {
            Self::Address => "ip daddr . ip protocol . th dport",
            Self::NodePort => "ip protocol . th dport",
        }
    }
}

/// A chain's identity: family, number of endpoints.
type Chain = (Family, usize);

fn chain_name((family, endpoints): Chain) -> String {
    format!("{}-{endpoints}", family.word())
}

/// The map and the chain of one slot.
fn slot_name(family: Family, number: usize) -> String {
    format!("{}-slot-{number}", family.word())
}

fn key(front: &Front) -> String {
    match front {
        Front::Address(address, protocol, port) => format!("{address} . {protocol} . {port}"),
        Front::NodePort(protocol, port) => format!("{protocol} . {port}"),
    }
}

/// The script that replaces the table by `rules`.
#[must_use]
pub fn load(rules: &Ruleset, cluster: Ipv4Net) -> String {
    let mut script = format!("table ip {TABLE} {{}}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n");
    for family in Family::ALL {
        let (word, kind) = (family.word(), family.key_type());
        // Writing to a String cannot fail.
        let _ = write!(
            script,
            " map {word}s {{ type {kind} : verdict; }}\n set {word}s-refused {{ type {kind}; }}\n set {word}s-dropped {{ type {kind}; }}\n \
             set {word}s-preserving {{ type {kind}; }}\n"
        );
    }
    let _ = write!(
        script,
        " set selves {{ type ipv4_addr . ipv4_addr; }}
 set clusters {{ type ipv4_addr; }}
 chain dispatch {{
  ip daddr . ip protocol . th dport vmap @services
  fib daddr type local ip daddr != 127.0.0.0/8 ip protocol . th dport vmap @nodeports
 }}
 chain mark-outside {{
  ip saddr {cluster} return
  ip daddr . ip protocol . th dport @services-preserving return
  fib daddr type local ip protocol . th dport @nodeports-preserving return
  meta mark set meta mark or {MARK}
 }}
 chain prerouting {{ type nat hook prerouting priority dstnat; jump mark-outside; jump dispatch; }}
 chain output {{ type nat hook output priority -100; jump dispatch; }}
 chain refuse {{ meta l4proto tcp reject with tcp reset; reject with icmp port-unreachable; }}
 chain without-endpoints {{
  ip daddr . ip protocol . th dport @services-refused goto refuse
  ip daddr . ip protocol . th dport @services-dropped drop
  fib daddr type local ip protocol . th dport @nodeports-refused goto refuse
  fib daddr type local ip protocol . th dport @nodeports-dropped drop
  ip daddr @clusters goto refuse
 }}
 chain filter-input {{ type filter hook input priority filter; ct state new jump without-endpoints; }}
 chain filter-forward {{ type filter hook forward priority filter; ct state new jump without-endpoints; }}
 chain filter-output {{ type filter hook output priority filter; ct state new jump without-endpoints; }}
 chain postrouting {{
  type nat hook postrouting priority srcnat
  ct status dnat meta mark and {MARK} == {MARK} masquerade
  ct status dnat ip saddr . ip daddr @selves masquerade
  ip saddr {cluster} ip daddr != {cluster} fib daddr type != local masquerade
 }}
}}\n"
    );
    let nothing = Ruleset::default();
    script.push_str(&change(&nothing, rules).unwrap_or_default());
    script
}

/// The script that turns `old` into `new`; nothing where they are equal.
#[must_use]
pub fn change(old: &Ruleset, new: &Ruleset) -> Option<String> {
    if old == new {
        return None;
    }
    let mut script = String::new();
    let had: BTreeSet<Chain> = chains(old);
    for family in Family::ALL {
        for number in slots(old, family)..slots(new, family) {
            add_slot(&mut script, family, number);
        }
    }
    for chain in chains(new).difference(&had) {
        add_chain(&mut script, *chain);
    }
    sticky::prepare(&mut script, old, new);
    let (drawn_before, drawn) = (drawn(old), drawn(new));
    let mut edit = |verb: &str, set: &str, element: &str| {
        let _ = writeln!(script, "{verb} element ip {TABLE} {set} {{ {element} }}");
    };
    for (front, target) in &old.services {
        if new.services.get(front) != Some(target) {
            let (set, _) = place(front, *target);
            edit("delete", &set, &key(front));
        }
    }
    for (at, endpoint) in &drawn_before {
        if drawn.get(at) != Some(endpoint) {
            edit("delete", &slot_name(Family::of(&at.0), at.1), &key(&at.0));
        }
    }
    for (name, old, new) in
        [("dropped", &old.dropped, &new.dropped), ("preserving", &old.preserving, &new.preserving)]
    {
        for front in old.difference(new) {
            edit("delete", &format!("{}s-{name}", Family::of(front).word()), &key(front));
        }
        for front in new.difference(old) {
            edit("add", &format!("{}s-{name}", Family::of(front).word()), &key(front));
        }
    }
    edit_addresses(&mut edit, old, new);
    for (at, endpoint) in &drawn {
        if drawn_before.get(at) != Some(endpoint) {
            edit(
                "add",
                &slot_name(Family::of(&at.0), at.1),
                &format!("{} : {} . {}", key(&at.0), endpoint.0, endpoint.1),
            );
        }
    }
    for (front, target) in &new.services {
        if old.services.get(front) != Some(target) {
            let (set, element) = place(front, *target);
            edit("add", &set, &element);
        }
    }
    sticky::clean_up(&mut script, old, new);
    Some(script)
}

/// The sets of addresses: each by name, with what an element of it looks like.
fn edit_addresses(edit: &mut impl FnMut(&str, &str, &str), old: &Ruleset, new: &Ruleset) {
    let twice: fn(&Ipv4Addr) -> String = |address| format!("{address} . {address}");
    for (set, old, new, element) in [
        ("selves", &old.hairpins, &new.hairpins, twice),
        ("clusters", &old.clusters, &new.clusters, Ipv4Addr::to_string),
    ] {
        old.difference(new).for_each(|address| edit("delete", set, &element(address)));
        new.difference(old).for_each(|address| edit("add", set, &element(address)));
    }
}

/// The set that a front is in, and its element there.
fn place(front: &Front, target: Target) -> (String, String) {
    let word = Family::of(front).word();
    if target.endpoints == 0 {
        return (format!("{word}s-refused"), key(front));
    }
    let chain = if target.affinity_seconds > 0 {
        sticky::chain(front)
    } else {
        chain_name((Family::of(front), target.endpoints))
    };
    (format!("{word}s"), format!("{} : goto {chain}", key(front)))
}

/// The endpoints of fronts that draw one anew for each connection.
fn drawn(rules: &Ruleset) -> BTreeMap<&(Front, usize), &Endpoint> {
    let anew = |front: &Front| rules.services.get(front).is_some_and(|target| target.affinity_seconds == 0);
    rules.endpoints.iter().filter(|((front, _), _)| anew(front)).collect()
}

fn chains(rules: &Ruleset) -> BTreeSet<Chain> {
    rules
        .services
        .iter()
        .filter(|(_, target)| target.endpoints > 0 && target.affinity_seconds == 0)
        .map(|(front, target)| (Family::of(front), target.endpoints))
        .collect()
}

/// Slots that the rules use, by family: as many as the front with most endpoints has.
fn slots(rules: &Ruleset, family: Family) -> usize {
    chains(rules).into_iter().filter(|chain| chain.0 == family).map(|chain| chain.1).max().unwrap_or(0)
}

/// Chains and slots are kept once made: at most one for each number of endpoints ever seen. Adding one that is there changes
/// nothing, so its rules are written after a flush.
fn add_slot(script: &mut String, family: Family, number: usize) {
    // The types are named: with `typeof`, nft takes the rule for one about TCP.
    let (name, kind, key) = (slot_name(family, number), family.key_type(), family.key());
    let _ = write!(
        script,
        "add map ip {TABLE} {name} {{ type {kind} : ipv4_addr . inet_service; }}\nadd chain ip {TABLE} {name}\nflush chain ip {TABLE} {name}\nadd rule ip {TABLE} {name} dnat ip to {key} map @{name}\n"
    );
}

fn add_chain(script: &mut String, chain: Chain) {
    let (family, endpoints) = chain;
    let name = chain_name(chain);
    let draw: Vec<_> =
        (0..endpoints).map(|number| format!("{number} : goto {}", slot_name(family, number))).collect();
    let _ = write!(
        script,
        "add chain ip {TABLE} {name}\nflush chain ip {TABLE} {name}\nadd rule ip {TABLE} {name} numgen random mod {endpoints} vmap {{ {} }}\n",
        draw.join(", ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::Protocol;

    fn rules(endpoints: u8) -> Ruleset {
        let front = Front::Address(Ipv4Addr::new(10, 96, 0, 5), Protocol::Tcp, 80);
        let mut rules = Ruleset::default();
        rules.services.insert(front, Target { endpoints: usize::from(endpoints), affinity_seconds: 0 });
        rules
            .endpoints
            .extend((0..endpoints).map(|i| ((front, usize::from(i)), (Ipv4Addr::new(10, 244, 0, i), 8080))));
        rules
    }

    #[test]
    fn one_more_endpoint_is_one_element_and_one_verdict() {
        let script = change(&rules(1), &rules(2)).expect("a change");
        let lines: Vec<&str> = script.lines().collect();
        assert_eq!(
            lines,
            [
                "add map ip coracle-proxy service-slot-1 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }",
                "add chain ip coracle-proxy service-slot-1",
                "flush chain ip coracle-proxy service-slot-1",
                "add rule ip coracle-proxy service-slot-1 dnat ip to ip daddr . ip protocol . th dport map @service-slot-1",
                "add chain ip coracle-proxy service-2",
                "flush chain ip coracle-proxy service-2",
                "add rule ip coracle-proxy service-2 numgen random mod 2 vmap { 0 : goto service-slot-0, 1 : goto service-slot-1 }",
                "delete element ip coracle-proxy services { 10.96.0.5 . tcp . 80 }",
                "add element ip coracle-proxy service-slot-1 { 10.96.0.5 . tcp . 80 : 10.244.0.1 . 8080 }",
                "add element ip coracle-proxy services { 10.96.0.5 . tcp . 80 : goto service-2 }",
            ]
        );
    }

    #[test]
    fn losing_the_last_endpoint_refuses() {
        let script = change(&rules(1), &rules(0)).expect("a change");
        assert!(
            script.contains("add element ip coracle-proxy services-refused { 10.96.0.5 . tcp . 80 }"),
            "{script}"
        );
        assert_eq!(change(&rules(1), &rules(1)), None);
    }
}
