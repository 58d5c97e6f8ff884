//! Pods' network cables, and routes to other nodes' pods, by rtnetlink.
//!
//! ```text
//! node: vethXXXX ── 10.244.1.7/32 is here      pod: eth0 10.244.1.7/32, everything goes to 169.254.1.1
//! ```
//!
//! Both ends know each other's hardware address for good, so no ARP is ever asked. The cable's name comes from the pod's
//! uid: making it again replaces it, and it can be removed by whoever knows the uid.

use coracle_daemon::Tasks;
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

/// Where a pod sends everything: an address that nobody has, answered by the cable's other end.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Hardware address of every node's end.
const NODE_HARDWARE: [u8; 6] = [0xee; 6];
/// The loopback device of a new network namespace.
const LOOPBACK: u32 = 1;
/// Marks routes to other nodes as ours, so that stale ones are found after a restart.
const OURS: RouteProtocol = RouteProtocol::Other(0xc0);

/// Why the network could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub struct NetworkError {
    doing: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn cannot<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    doing: impl Into<String>,
) -> impl FnOnce(E) -> NetworkError {
    let doing = doing.into();
    move |error| NetworkError { doing, source: error.into() }
}

/// One network namespace's devices and routes.
#[derive(Clone)]
pub struct Network {
    handle: Handle,
}

impl Network {
    /// The network of the calling thread.
    ///
    /// # Errors
    /// The kernel refuses a netlink socket.
    pub fn here(tasks: &Tasks) -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(cannot("open a netlink socket"))?;
        let stop = tasks.stopping();
        tasks.run("netlink", async move {
            tokio::select! { () = connection => {}, () = stop.cancelled() => {} }
        });
        Ok(Self { handle })
    }

    /// Sends packets for `pods` to the node at `via`; replaces what was said before.
    ///
    /// # Errors
    /// The kernel refuses the route.
    pub async fn add_route(&self, pods: Ipv4Net, via: Ipv4Addr) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(pods.network(), pods.prefix_len())
            .gateway(via)
            .protocol(OURS)
            .build();
        self.handle
            .route()
            .add(route)
            .replace()
            .execute()
            .await
            .map_err(cannot(format!("set the route to {pods} via {via}")))
    }

    /// Forgets the way to `pods`. None is fine.
    ///
    /// # Errors
    /// The kernel keeps the route.
    pub async fn remove_route(&self, pods: Ipv4Net) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(pods.network(), pods.prefix_len())
            .protocol(OURS)
            .build();
        match self.handle.route().del(route).execute().await {
            Err(error) if code(&error) == Some(libc::ESRCH) => Ok(()),
            removed => removed.map_err(cannot(format!("remove the route to {pods}"))),
        }
    }

    /// All routes that [`Network::add_route`] made, also before a restart.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn routes(&self) -> Result<Vec<(Ipv4Net, Ipv4Addr)>, NetworkError> {
        let all: Vec<RouteMessage> = self
            .handle
            .route()
            .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
            .execute()
            .try_collect()
            .await
            .map_err(cannot("list routes"))?;
        Ok(all.iter().filter(|route| route.header.protocol == OURS).filter_map(read_route).collect())
    }

    /// Removes a cable, with the pod's end. None is fine.
    ///
    /// # Errors
    /// The kernel keeps the cable.
    pub(super) async fn unplug(&self, uid: &str) -> Result<(), NetworkError> {
        let cable = cable(uid);
        let Some(index) = self.index(&cable).await? else { return Ok(()) };
        match self.handle.link().del(index).execute().await {
            Err(error) if code(&error) == Some(libc::ENODEV) => Ok(()),
            removed => removed.map_err(cannot(format!("remove {cable}"))),
        }
    }

    /// Lays a cable from this node into the namespace `inside`, whose network is `pod`.
    ///
    /// # Errors
    /// The kernel refuses the cable, an address or a route.
    pub(super) async fn plug(
        &self,
        uid: &str,
        address: Ipv4Addr,
        inside: &File,
        pod: &Self,
    ) -> Result<(), NetworkError> {
        self.unplug(uid).await?;
        let cable = cable(uid);
        let far = LinkMessageBuilder::<LinkUnspec>::new()
            .name("eth0")
            .address(pod_hardware(address).to_vec())
            .setns_by_fd(inside.as_raw_fd())
            .build();
        let near = LinkMessageBuilder::<LinkVeth>::new(&cable, "eth0")
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .address(NODE_HARDWARE.to_vec())
            .up()
            .build();
        self.handle.link().add(near).execute().await.map_err(cannot(format!("make {cable}")))?;
        let near = self.index(&cable).await?.ok_or_else(|| cannot(format!("find {cable}"))("it vanished"))?;
        self.neighbour(near, address, pod_hardware(address)).await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(near)
            .scope(RouteScope::Link)
            .build();
        self.handle
            .route()
            .add(route)
            .replace()
            .execute()
            .await
            .map_err(cannot(format!("set the route to {address}")))?;
        pod.inside(address).await
    }

    /// The pod's end: its address, and the way out.
    async fn inside(&self, address: Ipv4Addr) -> Result<(), NetworkError> {
        let eth0 = self.index("eth0").await?.ok_or_else(|| cannot("find eth0")("it vanished"))?;
        // Not while it is made: a cable's end starts only when the other one exists.
        let up = LinkUnspec::new_with_index(eth0).up().build();
        self.handle.link().set(up).execute().await.map_err(cannot("start eth0"))?;
        self.handle
            .address()
            .add(eth0, IpAddr::V4(address), 32)
            .replace()
            .execute()
            .await
            .map_err(cannot("give the pod its address"))?;
        self.neighbour(eth0, GATEWAY, NODE_HARDWARE).await?;
        let gateway = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(GATEWAY, 32)
            .output_interface(eth0)
            .scope(RouteScope::Link)
            .build();
        let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).output_interface(eth0).build();
        for route in [gateway, default] {
            self.handle
                .route()
                .add(route)
                .replace()
                .execute()
                .await
                .map_err(cannot("set the pod's routes"))?;
        }
        Ok(())
    }

    /// Starts the loopback device.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) async fn loopback_up(&self) -> Result<(), NetworkError> {
        let up = LinkUnspec::new_with_index(LOOPBACK).up().build();
        self.handle.link().set(up).execute().await.map_err(cannot("start the loopback device"))
    }

    async fn neighbour(&self, device: u32, address: Ipv4Addr, hardware: [u8; 6]) -> Result<(), NetworkError> {
        self.handle
            .neighbours()
            .add(device, IpAddr::V4(address))
            .link_layer_address(&hardware)
            .replace()
            .execute()
            .await
            .map_err(cannot(format!("say where {address} is")))
    }

    async fn index(&self, name: &str) -> Result<Option<u32>, NetworkError> {
        match self.handle.link().get().match_name(name.to_owned()).execute().try_next().await {
            Ok(found) => Ok(found.map(|link| link.header.index)),
            Err(error) if code(&error) == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(cannot(format!("look up {name}"))(error)),
        }
    }
}

/// The errno of a kernel's refusal.
fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

fn read_route(route: &RouteMessage) -> Option<(Ipv4Net, Ipv4Addr)> {
    let (mut to, mut via) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = Some(*address),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => via = Some(*address),
            _ => {}
        }
    }
    Some((Ipv4Net::new(to?, route.header.destination_prefix_length).ok()?, via?))
}

/// The node's end of a pod's cable; a device's name has at most 15 bytes.
fn cable(uid: &str) -> String {
    let digest = Sha256::digest(uid);
    let mut name = "veth".to_owned();
    name.extend(digest.iter().take(5).map(|byte| format!("{byte:02x}")));
    name
}

fn pod_hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// Runs blocking work that changes its thread's namespaces; the thread ends with it.
pub(super) async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("namespaces".to_owned()).spawn(move || {
        // Nobody waiting any more is fine.
        let _ = done.send(work());
    })?;
    result.await.map_err(|_| io::Error::other("the thread ended without a result"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cable_is_named_after_its_pod_and_fits_the_kernel() {
        let name = cable("0b6c9a4e-8f7c-4c1e-9a53-9f6c0f3b8b10");
        assert_eq!(name, cable("0b6c9a4e-8f7c-4c1e-9a53-9f6c0f3b8b10"));
        assert_ne!(name, cable("another"));
        assert!(name.len() < 16, "{name}");
    }
}
