//! Controllers at work, on simulated nodes or real ones.

use anyhow::{Result, ensure};
use coracle_tests::{Cluster, Deadline};

pub fn deployment(cluster: &Cluster) -> Result<()> {
    cluster.tells("create deployment web --image=nginx:1 --replicas=3")?;
    cluster.expect("rollout status deployment web --timeout=60s", "successfully rolled out")?;
    cluster.expect("get deployment web", "3/3")?;
    cluster.tells("scale deployment web --replicas=5")?;
    cluster.tells("wait deployment web --for=jsonpath={.status.readyReplicas}=5 --timeout=60s")?;
    cluster.tells("set image deployment web nginx=nginx:2")?;
    cluster.tells("rollout status deployment web --timeout=60s")?;
    let images = cluster.tells("get pods -l app=web --field-selector=status.phase=Running -o jsonpath={.items[*].spec.containers[0].image}")?;
    ensure!(images.contains("nginx:2"), "{images}");
    cluster.expect("rollout history deployment web", "2")?;
    cluster.tells("rollout undo deployment web")?;
    cluster.tells("rollout status deployment web --timeout=60s")?;
    cluster.expect("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}", "nginx:1")?;
    cluster.tells("rollout restart deployment web")?;
    cluster.tells("rollout status deployment web --timeout=60s")?;
    cluster.tells("delete deployment web")?;
    cluster.tells("wait pods -l app=web --for=delete --timeout=60s")?;
    ensure!(cluster.tells("get replicasets -l app=web -o name")?.is_empty());
    Ok(())
}

pub fn service(cluster: &Cluster) -> Result<()> {
    cluster.tells("create deployment back --image=nginx --replicas=2 --port=80")?;
    cluster.tells("rollout status deployment back --timeout=60s")?;
    cluster.tells("expose deployment back --port=8080 --target-port=80")?;
    cluster.expect("get service back -o jsonpath={.spec.clusterIP}", "10.96.")?;
    let addresses = "get endpointslices -l kubernetes.io/service-name=back \
        -o jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}";
    let count = |wanted: usize| {
        cluster.until(&format!("that the service has {wanted} endpoints"), Deadline::seconds(30), |cluster| {
            Ok(cluster.tells(addresses)?.split_whitespace().count() == wanted)
        })
    };
    count(2)?;
    cluster.tells("scale deployment back --replicas=3")?;
    count(3)?;
    cluster.tells("delete deployment back")?;
    count(0)?;
    cluster.expect("delete service back", "deleted")
}

const STATEFUL: &str = "
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: postgres}]}
";

pub fn stateful_set(cluster: &Cluster) -> Result<()> {
    cluster.apply(STATEFUL)?;
    cluster.tells("rollout status statefulset db --timeout=60s")?;
    let names = "get pods -l app=db -o name --sort-by=.metadata.creationTimestamp";
    ensure!(cluster.tells(names)?.lines().eq(["pod/db-0", "pod/db-1", "pod/db-2"]));
    let before = cluster.tells("get pod db-1 -o jsonpath={.metadata.uid}")?;
    // kubectl waits in vain for a pod that is gone and back before its cache has synced.
    cluster.expect("delete pod db-1 --timeout=30s", "deleted")?;
    cluster.until("that db-1 is back as another pod", Deadline::seconds(30), |cluster| {
        let now = cluster.kubectl("get pod db-1 -o jsonpath={.metadata.uid}")?;
        Ok(now.success && now.out != before)
    })?;
    cluster.tells("scale statefulset db --replicas=1")?;
    cluster.tells("wait pod/db-1 pod/db-2 --for=delete --timeout=60s")?;
    cluster.expect(names, "pod/db-0")?;
    cluster.expect("delete statefulset,service db", "deleted")
}

pub fn daemon_set(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: agent}\nspec: {selector: {matchLabels: {app: agent}}, \
         template: {metadata: {labels: {app: agent}}, spec: {containers: [{name: a, image: busybox}]}}}\n",
    )?;
    cluster.tells("rollout status daemonset agent --timeout=60s")?;
    let nodes = cluster.tells("get nodes -o name")?.lines().count();
    let mut on: Vec<String> = cluster
        .tells("get pods -l app=agent -o jsonpath={.items[*].spec.nodeName}")?
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    on.sort();
    on.dedup();
    ensure!(on.len() == nodes, "on {on:?}, of {nodes}");
    cluster.expect("delete daemonset agent", "deleted")
}

pub fn jobs(cluster: &Cluster) -> Result<()> {
    cluster.tells("create job sum --image=busybox -- true")?;
    cluster.tells("wait job sum --for=condition=complete --timeout=60s")?;
    cluster.expect("get job sum", "1/1")?;
    cluster.tells("create cronjob tide --image=busybox --schedule='* * * * *' -- true")?;
    cluster.tells("create job now --from=cronjob/tide")?;
    cluster.tells("wait job now --for=condition=complete --timeout=60s")?;
    cluster.tells("delete cronjob tide")?;
    cluster.expect("delete job sum now --ignore-not-found", "deleted")
}

pub fn quota(cluster: &Cluster) -> Result<()> {
    cluster.tells("create namespace small")?;
    cluster.tells("create quota few -n small --hard=configmaps=3,pods=2")?;
    cluster.tells("wait quota few -n small --for=jsonpath={.status.hard.pods}=2 --timeout=30s")?;
    cluster.tells("create configmap one -n small")?;
    cluster.tells("create configmap two -n small")?;
    cluster.refuses("create configmap three -n small", "exceeded quota: few")?;
    cluster.apply(
        "apiVersion: v1\nkind: LimitRange\nmetadata: {name: bounds, namespace: small}\n\
         spec: {limits: [{type: Container, default: {cpu: 200m}, max: {cpu: 500m}}]}\n",
    )?;
    cluster.tells("run within -n small --image=busybox")?;
    cluster
        .expect("get pod within -n small -o jsonpath={.spec.containers[0].resources.limits.cpu}", "200m")?;
    let beyond = "run beyond -n small --image=busybox \
        --overrides='{\"spec\":{\"containers\":[{\"name\":\"beyond\",\"image\":\"busybox\",\"resources\":{\"limits\":{\"cpu\":\"1\"}}}]}}'";
    cluster.refuses(beyond, "maximum cpu usage per Container is 500m")?;
    cluster.tells("delete namespace small --timeout=60s").map(|_| ())
}
