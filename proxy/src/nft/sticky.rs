//! Fronts whose clients stay with their endpoint: a chain a front and an endpoint, and a set of clients each.
//!
//! An endpoint's set holds the clients that it served within the time of affinity, so that a client stays when other
//! endpoints come and go, and is spread anew when its own goes, which takes its set along.

use super::TABLE;
use crate::ruleset::{Endpoint, Front, Protocol, Ruleset};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A front's seconds of affinity and its endpoints.
type Sticky = BTreeMap<Front, (u32, BTreeSet<Endpoint>)>;

fn of(rules: &Ruleset) -> Sticky {
    let mut found = Sticky::new();
    for (front, target) in &rules.services {
        if target.affinity_seconds > 0 && target.endpoints > 0 {
            found.insert(*front, (target.affinity_seconds, BTreeSet::new()));
        }
    }
    for ((front, _), endpoint) in &rules.endpoints {
        if let Some((_, endpoints)) = found.get_mut(front) {
            endpoints.insert(*endpoint);
        }
    }
    found
}

fn name(front: &Front) -> String {
    match front {
        Front::Address(address, protocol, port) => format!("{address}-{protocol}-{port}"),
        Front::NodePort(protocol, port) => format!("node-{protocol}-{port}"),
    }
}

const fn protocol(front: &Front) -> Protocol {
    match front {
        Front::Address(_, protocol, _) | Front::NodePort(protocol, _) => *protocol,
    }
}

/// The chain of a front.
pub fn chain(front: &Front) -> String {
    format!("sticky-{}", name(front))
}

fn endpoint_chain(front: &Front, (address, port): &Endpoint) -> String {
    format!("sticky-{}-{address}-{port}", name(front))
}

fn clients(front: &Front, (address, port): &Endpoint) -> String {
    format!("clients-{}-{address}-{port}", name(front))
}

/// Chains and sets that `new` needs and `old` lacks; to run before anything refers to them.
pub fn prepare(script: &mut String, old: &Ruleset, new: &Ruleset) {
    let old = of(old);
    for (front, (seconds, endpoints)) in &of(new) {
        let before = old.get(front);
        if before.is_some_and(|before| before == &(*seconds, endpoints.clone())) {
            continue;
        }
        for endpoint in endpoints {
            let known = before.is_some_and(|(before, known)| before == seconds && known.contains(endpoint));
            if !known {
                add_endpoint(script, front, endpoint, *seconds);
            }
        }
        add_front(script, front, endpoints);
    }
}

// Writing to a String cannot fail, here and below.
fn add_endpoint(script: &mut String, front: &Front, endpoint: &Endpoint, seconds: u32) {
    let (chain, set) = (endpoint_chain(front, endpoint), clients(front, endpoint));
    let (address, port) = endpoint;
    let _ = write!(
        script,
        "add set ip {TABLE} {set} {{ type ipv4_addr; size 65535; flags dynamic,timeout; }}\nadd chain ip {TABLE} {chain}\nflush chain ip {TABLE} {chain}\n\
         add rule ip {TABLE} {chain} update @{set} {{ ip saddr timeout {seconds}s }}\n\
         add rule ip {TABLE} {chain} meta l4proto {} dnat ip to {address}:{port}\n",
        protocol(front)
    );
}

fn add_front(script: &mut String, front: &Front, endpoints: &BTreeSet<Endpoint>) {
    let chain = chain(front);
    let _ = write!(script, "add chain ip {TABLE} {chain}\nflush chain ip {TABLE} {chain}\n");
    let mut draw = Vec::new();
    for (number, endpoint) in endpoints.iter().enumerate() {
        let to = endpoint_chain(front, endpoint);
        let _ =
            writeln!(script, "add rule ip {TABLE} {chain} ip saddr @{} goto {to}", clients(front, endpoint));
        draw.push(format!("{number} : goto {to}"));
    }
    let _ = writeln!(
        script,
        "add rule ip {TABLE} {chain} numgen random mod {} vmap {{ {} }}",
        draw.len(),
        draw.join(", ")
    );
}

/// Removes the chains and sets of `old` that `new` does not need; to run once nothing refers to them.
pub fn clean_up(script: &mut String, old: &Ruleset, new: &Ruleset) {
    let new = of(new);
    let none = BTreeSet::new();
    for (front, (_, endpoints)) in &of(old) {
        let kept = new.get(front).map_or(&none, |(_, kept)| kept);
        if !new.contains_key(front) {
            let chain = chain(front);
            let _ = write!(script, "flush chain ip {TABLE} {chain}\ndelete chain ip {TABLE} {chain}\n");
        }
        for endpoint in endpoints.difference(kept) {
            let (chain, set) = (endpoint_chain(front, endpoint), clients(front, endpoint));
            let _ = write!(
                script,
                "flush chain ip {TABLE} {chain}\ndelete chain ip {TABLE} {chain}\ndelete set ip {TABLE} {set}\n"
            );
        }
    }
}
