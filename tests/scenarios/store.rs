//! The store speaks etcd v3: stock etcdctl works against it.

use anyhow::{Result, ensure};
use coracle_tests::Cluster;

pub fn etcdctl(cluster: &Cluster) -> Result<()> {
    let members = cluster.processes()?.iter().filter(|process| process.component == "store").count();
    let health = cluster.etcdctl("endpoint health")?;
    // etcdctl tells health on standard error.
    let told = format!("{}{}", health.out, health.err);
    health.ok()?;
    ensure!(told.matches("is healthy").count() == members, "{told}");
    let listed = cluster.etcdctl("member list")?.ok()?;
    ensure!(listed.matches("started").count() == members, "{listed}");
    let status = cluster.etcdctl("endpoint status -w json")?.ok()?;
    ensure!(status.matches("\"revision\"").count() == members, "{status}");

    // What the apiserver writes is where Kubernetes puts it.
    cluster.tells("create configmap moored --from-literal=at=quay")?;
    let keys = cluster.etcdctl("get /registry/configmaps/default/ --prefix --keys-only")?.ok()?;
    ensure!(keys.contains("/registry/configmaps/default/moored"), "{keys}");
    let value = cluster.etcdctl("get /registry/configmaps/default/moored --print-value-only")?.ok()?;
    ensure!(value.contains("quay"), "{value}");
    cluster.expect("delete configmap moored", "deleted")?;
    let gone = cluster.etcdctl("get /registry/configmaps/default/moored --print-value-only")?.ok()?;
    ensure!(gone.trim().is_empty(), "{gone}");

    cluster.etcdctl("put /elsewhere/a 1")?.ok()?;
    let txn = cluster.etcdctl("del /elsewhere/ --prefix")?.ok()?;
    ensure!(txn.trim() == "1", "{txn}");
    let one = cluster.processes()?.into_iter().find(|process| process.component == "store");
    let one = one.map(|process| process.endpoint).unwrap_or_default();
    cluster.etcdctl(&format!("snapshot save kept.db --endpoints {one}"))?.ok()?;
    Ok(())
}
