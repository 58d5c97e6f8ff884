//! Addresses of pods: each running pod holds one of its node's, by uid, until it is gone.
//!
//! Invariant: no two held addresses are equal. A pod that already has one in its status (from before a restart) keeps it.

use ipnet::Ipv4Net;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// The held addresses.
#[derive(Default)]
pub struct Addresses {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    by_uid: HashMap<String, Ipv4Addr>,
    by_address: HashMap<Ipv4Addr, String>,
}

impl Held {
    fn hold(&mut self, uid: &str, address: Ipv4Addr) {
        self.by_uid.insert(uid.to_owned(), address);
        self.by_address.insert(address, uid.to_owned());
    }
}

impl Addresses {
    /// The pod's address: the one it holds, the one it `had`, or the first free one of `cidr`. `None` if all are held.
    pub fn of(&self, uid: &str, had: Option<Ipv4Addr>, cidr: Ipv4Net) -> Option<Ipv4Addr> {
        let mut held = self.held.lock();
        if let Some(address) = held.by_uid.get(uid) {
            return Some(*address);
        }
        let free = |address: &Ipv4Addr| !held.by_address.contains_key(address);
        // The first host address is left to the node.
        let address = had
            .filter(|had| cidr.contains(had) && free(had))
            .or_else(|| cidr.hosts().skip(1).find(|address| free(address)))?;
        held.hold(uid, address);
        Some(address)
    }

    /// Frees what the pod held.
    pub fn release(&self, uid: &str) {
        let mut held = self.held.lock();
        if let Some(address) = held.by_uid.remove(uid) {
            held.by_address.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_held_once_and_come_back() {
        let (all, cidr) = (Addresses::default(), "10.9.0.0/30".parse().unwrap());
        let two = Some(Ipv4Addr::new(10, 9, 0, 2));
        assert_eq!(all.of("a", None, cidr), two);
        assert_eq!(all.of("a", None, cidr), two);
        assert_eq!(all.of("b", two, cidr), None, "a /30 has one pod address");
        all.release("a");
        assert_eq!(all.of("b", two, cidr), two);
    }
}
