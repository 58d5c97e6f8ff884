//! Nodes that run containers: what the README shows.

use anyhow::{Result, ensure};
use coracle_tests::{Cluster, Deadline};
use std::fs;

pub fn ready(cluster: &Cluster) -> Result<()> {
    cluster.tells("wait nodes --all --for=condition=Ready --timeout=60s")?;
    ensure!(cluster.told.contains("DNS answers"), "{}", cluster.told);
    cluster.until("that every process is well", Deadline::seconds(60), |cluster| {
        Ok(cluster.processes()?.iter().all(|process| process.health == "ok"))
    })
}

pub fn service_by_name(cluster: &Cluster) -> Result<()> {
    cluster.tells("create deployment web --image=nginx --replicas=2 --port=80")?;
    cluster.expect("rollout status deployment web --timeout=120s", "successfully rolled out")?;
    cluster.tells("expose deployment web --port=80")?;
    cluster.tells("run shell --image=busybox --restart=Never -- sleep 3600")?;
    cluster.tells("wait pod shell --for=condition=Ready --timeout=120s")?;
    for name in ["web", "web.default", "web.default.svc.cluster.local"] {
        cluster.until(&format!("that {name} answers"), Deadline::seconds(30), |cluster| {
            Ok(cluster.kubectl(&format!("exec shell -- wget -q -O - http://{name}/"))?.out.contains("nginx"))
        })?;
    }
    cluster.expect("exec shell -- nslookup kubernetes.default.svc.cluster.local", "10.96.0.1")?;
    cluster.refuses("exec shell -- wget -q -O - http://no-such-name/", "bad address")
}

pub fn host_ports(cluster: &Cluster) -> Result<()> {
    let node = cluster.tells("get node -o jsonpath={.items[0].metadata.name}")?;
    let address = cluster.tells("get node -o jsonpath={.items[0].status.addresses[0].address}")?;
    let moor = |name: &str, port: &str| {
        let spec = format!("{{nodeName: {node}, containers: [{{name: c, image: nginx, ports: [{port}]}}]}}");
        cluster.apply(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {spec}\n"))
    };
    moor("quay", "{containerPort: 80, hostPort: 8088}")?;
    moor("cabin", "{containerPort: 80, hostPort: 8089, hostIP: 127.0.0.1}")?;
    let on_node = format!(r#"{{"spec":{{"nodeName":"{node}","hostNetwork":true}}}}"#);
    cluster.tells(&format!("run onlooker --image=busybox --overrides='{on_node}' -- sleep 3600"))?;
    cluster.tells("wait pod quay cabin onlooker --for=condition=Ready --timeout=120s")?;
    cluster.expect(&format!("exec shell -- wget -q -O - http://{address}:8088/"), "nginx")?;
    cluster.expect(&format!("exec onlooker -- wget -q -O - http://{address}:8088/"), "nginx")?;
    cluster.expect("exec onlooker -- wget -q -O - http://127.0.0.1:8089/", "nginx")?;
    cluster.refuses(&format!("exec shell -- wget -q -O - http://{address}:8089/"), "refused")?;
    moor("second", "{containerPort: 80, hostPort: 8088}")?;
    cluster.until("that the second is turned away", Deadline::seconds(30), |cluster| {
        Ok(cluster.tells("get pod second -o jsonpath={.status.reason}")? == "NodePorts")
    })?;
    cluster.tells("delete pod quay second cabin --grace-period=1")?;
    cluster.refuses(&format!("exec shell -- wget -q -O - http://{address}:8088/"), "refused")?;
    cluster.tells("delete pod onlooker --grace-period=1").map(|_| ())
}

pub fn rollout(cluster: &Cluster) -> Result<()> {
    cluster.tells("scale deployment web --replicas=3")?;
    cluster.tells("rollout status deployment web --timeout=120s")?;
    cluster.tells("rollout restart deployment web")?;
    cluster.tells("rollout status deployment web --timeout=120s")?;
    cluster.expect("exec shell -- wget -q -O - http://web/", "nginx")?;
    cluster.tells("scale deployment web --replicas=1")?;
    cluster.tells("wait deployment web --for=jsonpath={.status.replicas}=1 --timeout=120s").map(|_| ())
}

pub fn streams(cluster: &Cluster) -> Result<()> {
    cluster.expect("exec shell -- echo aye", "aye")?;
    ensure!(cluster.kubectl_reading("port\n", "exec -i shell -- cat")?.ok()? == "port\n");
    cluster.refuses("exec shell -- sh -c 'exit 3'", "exit code 3")?;
    cluster.tells("run parrot --image=busybox --restart=Never -- sh -c 'echo one; echo two; sleep 3600'")?;
    cluster.tells("wait pod parrot --for=condition=Ready --timeout=60s")?;
    cluster.follow("logs -f parrot")?.line(Deadline::seconds(20), |line| line == "two")?;
    ensure!(cluster.tells("logs parrot --tail=1")? == "two");
    let mut forward = cluster.follow("port-forward deployment/web :80 --address 127.0.0.1")?;
    let told = forward.line(Deadline::seconds(20), |line| line.contains("Forwarding from"))?;
    let address = told.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap_or_default();
    let url = format!("http://{address}/");
    let page = std::process::Command::new("busybox").args(["wget", "-q", "-O", "-", &url]).output()?;
    ensure!(String::from_utf8_lossy(&page.stdout).contains("nginx"), "{page:?}");
    cluster.expect("delete pod parrot --grace-period=1", "deleted")
}

/// `kubectl debug`: a container more in a pod that runs.
pub fn debug(cluster: &Cluster) -> Result<()> {
    cluster.tells("run ship --image=busybox -- sleep 3600")?;
    cluster.tells("wait pod ship --for=condition=Ready --timeout=60s")?;
    let looks = "debug ship --image=busybox -c doctor --target=ship -- sh -c 'ps; sleep 3600'";
    cluster.expect(looks, "Targeting container \"ship\"")?;
    let status = |at: usize, path: &str| {
        format!("get pod ship -o jsonpath={{.status.ephemeralContainerStatuses[{at}].state.{path}}}")
    };
    cluster.until("that the doctor is there", Deadline::seconds(30), |cluster| {
        Ok(!cluster.tells(&status(0, "running.startedAt"))?.is_empty())
    })?;
    cluster.until("that the doctor sees the patient", Deadline::seconds(20), |cluster| {
        Ok(cluster.tells("logs ship -c doctor")?.contains("sleep 3600"))
    })?;
    cluster.expect("exec ship -c doctor -- echo aye", "aye")?;
    let talk = "debug ship -it --image=busybox -c mate -- sh -c 'read word; echo got $word; exit 3'";
    let told = cluster.kubectl_reading("port\n", talk)?;
    let told = format!("{}{}", told.out, told.err);
    ensure!(told.contains("got port"), "{told}");
    cluster.until("that the mate is gone", Deadline::seconds(20), |cluster| {
        Ok(cluster.tells(&status(1, "terminated.exitCode"))? == "3")
    })?;
    cluster.expect(
        "get pod ship -o jsonpath={.status.phase}{.status.containerStatuses[0].restartCount}",
        "Running0",
    )?;
    cluster.refuses(
        r#"patch pod ship --subresource=ephemeralcontainers --type=json -p '[{"op":"remove","path":"/spec/ephemeralContainers/0"}]'"#,
        "existing ephemeral containers \"doctor\" may not be removed",
    )?;
    cluster.expect("delete pod ship --grace-period=1", "deleted")
}

/// `kubectl patch --subresource resize`: other limits for a container that runs.
pub fn resize(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: sail}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: a\n    \
         image: busybox\n    command: [sleep, '3600']\n    \
         resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]\n    \
         resources: {requests: {cpu: 50m, memory: 16Mi}, limits: {cpu: 200m, memory: 64Mi}}\n",
    )?;
    cluster.tells("wait pod sail --for=condition=Ready --timeout=60s")?;
    let patch = |kind: &str, name: &str, amount: &str| {
        let resources = format!(r#"{{"{kind}":{{"{name}":"{amount}"}}}}"#);
        let spec = format!(r#"{{"spec":{{"containers":[{{"name":"a","resources":{resources}}}]}}}}"#);
        cluster.tells(&format!("patch pod sail --subresource resize --patch '{spec}'"))
    };
    let shows = |what: &str, path: &str, wanted: &str| {
        cluster.until(what, Deadline::seconds(30), |cluster| {
            Ok(cluster.tells(&format!("get pod sail -o jsonpath={{.status.{path}}}"))? == wanted)
        })
    };
    patch("limits", "cpu", "400m")?;
    shows("that it runs with more", "containerStatuses[0].resources.limits.cpu", "400m")?;
    let quota = "exec sail -- sh -c 'cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us || cat /sys/fs/cgroup/cpu.max'";
    cluster.expect(quota, "40000")?;
    shows("that nothing was restarted", "containerStatuses[0].restartCount", "0")?;
    patch("limits", "memory", "96Mi")?;
    shows("that it starts anew", "containerStatuses[0].restartCount", "1")?;
    shows("that it runs with more memory", "containerStatuses[0].resources.limits.memory", "96Mi")?;
    patch("limits", "cpu", "9k")?;
    patch("requests", "cpu", "9k")?;
    let reason = "conditions[?(@.type==\"PodResizePending\")].reason";
    shows("that this is too much", reason, "Infeasible")?;
    shows("that it holds what it held", "containerStatuses[0].allocatedResources.cpu", "50m")?;
    patch("requests", "cpu", "50m")?;
    patch("limits", "cpu", "400m")?;
    shows("that nothing is pending", reason, "")?;
    cluster.expect("delete pod sail", "deleted")
}

pub fn probes(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: patient}\nspec:\n  containers:\n  - name: a\n    image: busybox\n    \
         command: [sh, -c, 'touch /tmp/well /tmp/ready; sleep 3600']\n    \
         readinessProbe: {exec: {command: [cat, /tmp/ready]}, periodSeconds: 1}\n    \
         livenessProbe: {exec: {command: [cat, /tmp/well]}, periodSeconds: 1, failureThreshold: 1}\n",
    )?;
    cluster.tells("wait pod patient --for=condition=Ready --timeout=60s")?;
    cluster.tells("exec patient -- rm /tmp/ready")?;
    cluster.tells("wait pod patient --for=condition=Ready=False --timeout=30s")?;
    cluster.tells("exec patient -- rm /tmp/well")?;
    cluster.tells(
        "wait pod patient --for=jsonpath={.status.containerStatuses[0].restartCount}=1 --timeout=60s",
    )?;
    cluster.tells("wait pod patient --for=condition=Ready --timeout=60s")?;
    cluster.expect("delete pod patient --grace-period=1", "deleted")
}

pub fn configuration(cluster: &Cluster) -> Result<()> {
    cluster.tells("create configmap orders --from-literal=course=west")?;
    cluster.tells("create secret generic cipher --from-literal=key=hunter2")?;
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: mate}\nspec:\n  containers:\n  - name: a\n    image: busybox\n    \
         command: [sleep, '3600']\n    \
         env:\n    - {name: COURSE, valueFrom: {configMapKeyRef: {name: orders, key: course}}}\n    \
         - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}\n    \
         volumeMounts: [{name: c, mountPath: /cipher}, {name: s, mountPath: /scratch}]\n  \
         volumes: [{name: c, secret: {secretName: cipher}}, {name: s, emptyDir: {}}]\n",
    )?;
    cluster.tells("wait pod mate --for=condition=Ready --timeout=60s")?;
    cluster.expect("exec mate -- sh -c 'echo $COURSE'", "west")?;
    cluster.expect("exec mate -- cat /cipher/key", "hunter2")?;
    cluster.expect("exec mate -- sh -c 'echo $NODE'", "-node-")?;
    cluster.tells("exec mate -- touch /scratch/a")?;
    // An account's token comes with every pod, and is good for the API.
    cluster.expect("exec mate -- ls /var/run/secrets/kubernetes.io/serviceaccount", "token")?;
    cluster.tells("delete pod mate --grace-period=1")?;
    cluster.expect("delete configmap/orders secret/cipher", "deleted")
}

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: hold}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";

fn loader(name: &str, command: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  \
         securityContext: {{runAsUser: 1000}}\n  \
         volumes: [{{name: v, persistentVolumeClaim: {{claimName: hold}}}}]\n  \
         containers: [{{name: a, image: busybox, command: [sh, -c, '{command}'], \
         volumeMounts: [{{name: v, mountPath: /v}}]}}]\n"
    )
}

pub fn claims(cluster: &Cluster) -> Result<()> {
    cluster.expect("get storageclass", "standard (default)")?;
    cluster.apply(CLAIM)?;
    cluster.until("that the claim waits for its first pod", Deadline::seconds(20), |cluster| {
        Ok(cluster.tells("describe pvc hold")?.contains("waiting for first consumer"))
    })?;
    for (name, command) in [("load", "echo tea > /v/cargo"), ("land", "cat /v/cargo")] {
        cluster.apply(&loader(name, command))?;
        cluster
            .tells(&format!("wait pod {name} --for=jsonpath={{.status.phase}}=Succeeded --timeout=60s"))?;
    }
    cluster.expect("logs land", "tea")?;
    let complaints = "get events --field-selector reason=FailedScheduling,involvedObject.name=load -o name";
    ensure!(cluster.tells(complaints)?.is_empty(), "nothing was wrong with the first pod");
    cluster.expect("get pvc hold", "Bound")?;
    let folder = cluster.tells("get pv -o jsonpath={.items[0].spec.hostPath.path}")?;
    ensure!(
        folder.starts_with(&*cluster.folder().to_string_lossy()),
        "{folder} is not in the cluster's folder"
    );
    ensure!(fs::read_to_string(format!("{folder}/cargo"))?.contains("tea"));
    cluster.tells("delete pod load land --grace-period=1")?;
    cluster.tells("delete pvc hold --timeout=30s")?;
    cluster.until("that volume and folder are gone", Deadline::seconds(30), |cluster| {
        Ok(cluster.tells("get pv -o name")?.is_empty() && !std::path::Path::new(&folder).exists())
    })
}

pub fn job(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {name: voyage}\nspec:\n  backoffLimit: 0\n  template:\n    spec:\n      \
         restartPolicy: Never\n      volumes: [{name: v, emptyDir: {}}]\n      \
         initContainers:\n      - {name: load, image: busybox, command: [sh, -c, 'echo tea > /v/cargo'], volumeMounts: [{name: v, mountPath: /v}]}\n      \
         containers:\n      - {name: land, image: busybox, command: [cat, /v/cargo], volumeMounts: [{name: v, mountPath: /v}]}\n",
    )?;
    cluster.tells("wait job voyage --for=condition=complete --timeout=60s")?;
    cluster.expect("logs job/voyage -c land", "tea")?;
    cluster.tells("create job wreck --image=busybox -- false")?;
    cluster.until("that the failed pod is told", Deadline::seconds(60), |cluster| {
        Ok(!cluster.tells("get job wreck -o jsonpath={.status.failed}")?.is_empty())
    })?;
    cluster.expect("delete job voyage wreck", "deleted")
}

pub fn down_leaves_nothing(cluster: &Cluster) -> Result<()> {
    cluster.tells("create deployment left --image=busybox --replicas=4 -- sleep 3600")?;
    cluster.tells("rollout status deployment left --timeout=120s")?;
    // Other clusters of this machine have networks with other numbers.
    let spec = fs::read(cluster.folder().join("spec.json"))?;
    let spec: serde_json::Value = serde_json::from_slice(&spec)?;
    let network = format!("coracle{}", spec["subnet"]);
    let ours = |line: &str| {
        line.split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| word == network || word.starts_with(&format!("{network}n")))
    };
    cluster.down("")?.ok()?;
    let mut left = Vec::new();
    let folder = cluster.folder();
    let folder = folder.to_string_lossy();
    for line in fs::read_to_string("/proc/self/mounts")?.lines().filter(|line| line.contains(&*folder)) {
        left.push(format!("mount {line}"));
    }
    for (program, words) in [("ip", ["-o", "link"]), ("nft", ["list", "tables"])] {
        let told = std::process::Command::new(program).args(words).output()?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        left.extend(told.lines().filter(|line| ours(line)).map(str::to_owned));
    }
    for process in fs::read_dir("/proc")?.flatten() {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&words).contains(&*folder) {
            left.push(format!("process {}", String::from_utf8_lossy(&words).replace('\0', " ")));
        }
    }
    ensure!(left.is_empty(), "{left:#?}");
    Ok(())
}
