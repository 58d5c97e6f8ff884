//! What the kernel should do, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

/// A transport protocol of Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// From the API's spelling; absent is TCP.
    #[must_use]
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Where a client sends packets: an address of the Service, or any address of the node at a node port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Front {
    /// A cluster IP, external IP or load balancer's address.
    Address(Ipv4Addr, Protocol, u16),
    /// A node port.
    NodePort(Protocol, u16),
}

/// A pod's address and port.
pub type Endpoint = (Ipv4Addr, u16);

/// How a front picks endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Number of endpoints; 0 is refused.
    pub endpoints: usize,
    /// Seconds that a client stays with its endpoint; 0: every connection picks anew.
    pub affinity_seconds: u32,
}

/// All rules of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Fronts with their number of endpoints.
    pub services: BTreeMap<Front, Target>,
    /// The endpoints of each front, numbered from 0.
    pub endpoints: BTreeMap<(Front, usize), Endpoint>,
    /// Fronts whose packets are dropped here because only other nodes have endpoints (traffic policy Local).
    pub dropped: BTreeSet<Front>,
    /// Fronts whose clients' addresses must reach the pods (external traffic policy Local).
    pub preserving: BTreeSet<Front>,
    /// Addresses that are Services' alone: other ports there are refused.
    pub clusters: BTreeSet<Ipv4Addr>,
    /// Addresses of this node's pods that may reach themselves through a Service.
    pub hairpins: BTreeSet<Ipv4Addr>,
}
