//! What `coracle up`, `down`, `status` and `image` do: certificates, processes, node namespaces, images.
//!
//! In: the flags of those commands. Out: a cluster of separate processes, all under one folder, and nothing elsewhere
//! but a bridge, a host nftables table and cgroups that `down` removes.
//!
//! ```text
//! up ──spec.json──► supervisor ──┬─ stores, apiservers, balancer, schedulers, controllers
//!                      ▲ socket  └─ run-node ×N ── (net, mnt, pid, uts, ipc) ── containerd, kubelet, proxy, dns
//!   status, down ──────┘
//! ```
//!
//! Invariant: what runs is a pure function of the [`spec::Spec`] (see [`plan`]); `up` on the same folder resumes the same cluster.

pub mod addons;
pub mod args;
pub mod balancer;
pub mod control;
pub mod down;
pub mod host;
pub mod http;
pub mod image;
pub mod kubeconfig;
pub mod layout;
pub mod node;
pub mod pki;
pub mod plan;
pub mod preflight;
pub mod process;
pub mod spec;
pub mod status;
pub mod supervisor;
pub mod up;
