//! Who may do what.

use anyhow::{Result, ensure};
use coracle_tests::Cluster;

pub fn deny_by_default(cluster: &Cluster) -> Result<()> {
    cluster.expect("auth can-i '*' '*'", "yes")?;
    cluster.refuses("auth can-i list pods --as=ann", "")?;
    cluster.refuses(
        "get secrets --as=ann",
        "secrets is forbidden: User \"ann\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\"",
    )?;
    // Nobody at all: version and health are told, nothing else. kubectl would ask a stranger for a password; an empty
    // token is as good as none.
    let stranger = |line: &str| {
        let who = format!("--kubeconfig=/dev/null --server={} --insecure-skip-tls-verify", cluster.server());
        cluster.kubectl(&format!("{who} {line}"))
    };
    ensure!(stranger("--token=' ' get --raw /version")?.ok()?.contains("v1.33."));
    ensure!(stranger("--token=' ' get --raw /readyz")?.ok()?.contains("ok"));
    for (line, wanted) in [
        ("--token=' ' get --raw /api/v1/secrets", "system:anonymous"),
        ("--token=' ' get --raw /metrics", "system:anonymous"),
        ("get --raw /api/v1/pods --token=made-up", "nauthorized"),
    ] {
        let told = stranger(line)?.refused()?;
        ensure!(told.contains(wanted), "{line}: {told}");
    }
    Ok(())
}

pub fn roles(cluster: &Cluster) -> Result<()> {
    cluster.tells("create role reader --verb=get,list --resource=configmaps")?;
    cluster.tells("create rolebinding ann-reads --role=reader --user=ann")?;
    cluster.expect("auth can-i list configmaps --as=ann", "yes")?;
    cluster.tells("get configmaps --as=ann")?;
    cluster.refuses("get configmaps --as=ann -n kube-system", "forbidden")?;
    cluster.refuses("delete configmap kube-root-ca.crt --as=ann", "cannot delete resource")?;
    // Nobody grants what he has not.
    cluster
        .tells("create clusterrole binder --verb=create,get --resource=roles.rbac.authorization.k8s.io")?;
    cluster.tells("create clusterrolebinding ann-binds --clusterrole=binder --user=ann")?;
    cluster.refuses(
        "create role more --verb=get --resource=secrets --as=ann",
        "is attempting to grant RBAC permissions not currently held",
    )?;
    cluster
        .tells("delete clusterrole/binder clusterrolebinding/ann-binds role/reader rolebinding/ann-reads")?;
    cluster.refuses("get configmaps --as=ann", "forbidden")
}

pub fn tokens(cluster: &Cluster) -> Result<()> {
    cluster.tells("create serviceaccount robot")?;
    let token = cluster.tells("create token robot --duration=10m")?;
    ensure!(token.split('.').count() == 3, "no JWT: {token}");
    let robot = format!(
        "--kubeconfig=/dev/null --server={} --insecure-skip-tls-verify --token={token}",
        cluster.server()
    );
    cluster.expect(&format!("{robot} auth whoami"), "system:serviceaccount:default:robot")?;
    cluster.refuses(&format!("{robot} get pods"), "system:serviceaccount:default:robot")?;
    // A token lives no longer than its account.
    cluster.tells("delete serviceaccount robot")?;
    cluster.refuses(&format!("{robot} auth whoami"), "nauthorized")
}
