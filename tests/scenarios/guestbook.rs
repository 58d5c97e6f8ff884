//! The guestbook: a page in front, a store that leads and two that follow behind it, found by their names.

use anyhow::{Result, ensure};
use coracle_tests::{Cluster, Deadline};

const GUESTBOOK: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: redis-leader, labels: {app: redis}}
spec:
  selector: {matchLabels: {app: redis, role: leader}}
  template:
    metadata: {labels: {app: redis, role: leader}}
    spec:
      containers:
      - name: leader
        image: redis
        args: [redis-server, --bind, 0.0.0.0, --protected-mode, "no"]
        ports: [{containerPort: 6379}]
        readinessProbe: {tcpSocket: {port: 6379}, periodSeconds: 1}
        resources: {requests: {cpu: 10m, memory: 16Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: redis-leader}
spec: {selector: {app: redis, role: leader}, ports: [{port: 6379}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: redis-follower, labels: {app: redis}}
spec:
  replicas: 2
  selector: {matchLabels: {app: redis, role: follower}}
  template:
    metadata: {labels: {app: redis, role: follower}}
    spec:
      containers:
      - name: follower
        image: redis
        args: [redis-server, --bind, 0.0.0.0, --protected-mode, "no", --replicaof, redis-leader, "6379"]
        ports: [{containerPort: 6379}]
        readinessProbe: {tcpSocket: {port: 6379}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: redis-follower}
spec: {selector: {app: redis, role: follower}, ports: [{port: 6379}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: frontend-page}
data:
  index.html: "<h1>Guestbook</h1>"
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: frontend}
spec:
  replicas: 3
  selector: {matchLabels: {app: guestbook, tier: frontend}}
  template:
    metadata: {labels: {app: guestbook, tier: frontend}}
    spec:
      containers:
      - name: page
        image: nginx
        ports: [{containerPort: 80, name: http}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
        volumeMounts: [{name: page, mountPath: /usr/share/nginx/html}]
      volumes: [{name: page, configMap: {name: frontend-page}}]
---
apiVersion: v1
kind: Service
metadata: {name: frontend}
spec: {type: NodePort, selector: {app: guestbook, tier: frontend}, ports: [{port: 80, targetPort: http}]}
"#;

pub fn guestbook(cluster: &Cluster) -> Result<()> {
    cluster.apply(GUESTBOOK)?;
    for deployment in ["redis-leader", "redis-follower", "frontend"] {
        cluster.tells(&format!("rollout status deployment {deployment} --timeout=120s"))?;
    }
    cluster.tells("run guest --image=busybox --restart=Never -- sleep 3600")?;
    cluster.tells("wait pod guest --for=condition=Ready --timeout=60s")?;
    cluster.until("that the page answers", Deadline::seconds(30), |cluster| {
        Ok(cluster.kubectl("exec guest -- wget -q -O - http://frontend/")?.out.contains("Guestbook"))
    })?;
    let command = |service: &str, words: &str| {
        format!("exec guest -- sh -c 'printf \"{words}\\r\\n\" | nc -w 2 {service} 6379'")
    };
    ensure!(
        cluster.tells(&command("redis-leader", "RPUSH messages ahoy"))?.contains(":1"),
        "redis takes a message"
    );
    cluster.until("that those who follow tell it", Deadline::seconds(30), |cluster| {
        Ok(cluster.kubectl(&command("redis-follower", "LRANGE messages 0 -1"))?.out.contains("ahoy"))
    })?;
    let port = cluster.tells("get service frontend -o jsonpath={.spec.ports[0].nodePort}")?;
    let node = cluster.tells("get nodes -o jsonpath={.items[0].status.addresses[0].address}")?;
    cluster.expect(&format!("exec guest -- wget -q -O - http://{node}:{port}/"), "Guestbook")?;
    cluster.tells("scale deployment frontend --replicas=1")?;
    cluster.tells("wait deployment frontend --for=jsonpath={.status.replicas}=1 --timeout=60s")?;
    cluster.tells("delete deployment redis-leader redis-follower frontend --grace-period=1")?;
    cluster.tells("delete service redis-leader redis-follower frontend")?;
    cluster.tells("delete configmap/frontend-page pod/guest --grace-period=1").map(|_| ())
}
