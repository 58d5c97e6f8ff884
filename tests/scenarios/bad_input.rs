//! What is wrong is refused with Kubernetes' words, which name the field.

use anyhow::{Result, ensure};
use coracle_tests::Cluster;

/// An object, and what must be in the refusal.
const TABLE: &[(&str, &str)] = &[
    (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name}\n",
        "metadata.name: Invalid value: \"Bad_Name\"",
    ),
    (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad, labels: {\"a b\": c}}\n",
        "metadata.labels: Invalid value: \"a b\"",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: []}\n",
        "spec.containers: Required value",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: [{name: a}]}\n",
        "spec.containers[0].image: Required value",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {restartPolicy: Sometimes, containers: [{name: a, image: a}]}\n",
        "spec.restartPolicy: Unsupported value: \"Sometimes\"",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: [{name: a, image: a}, {name: a, image: b}]}\n",
        "spec.containers[1].name: Duplicate value: \"a\"",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: [{name: a, image: a, resources: {requests: {cpu: lots}}}]}\n",
        "quantities must match the regular expression",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: [{name: a, image: a, resources: {requests: {cpu: 2}, limits: {cpu: 1}}}]}\n",
        "spec.containers[0].resources.requests: Invalid value: \"2\"",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: [{name: a, image: a, volumeMounts: [{name: v, mountPath: /v}]}]}\n",
        "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: 99999}]}\n",
        "spec.ports[0].port: Invalid value: 99999",
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {clusterIP: 1.2.3, ports: [{port: 80}]}\n",
        "spec.clusterIPs[0]: Invalid value",
    ),
    (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: a, image: a}]}}}\n",
        "`selector` does not match template `labels`",
    ),
    (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec: {replicas: -1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}\n",
        "spec.replicas: Invalid value: -1",
    ),
    (
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: bad}\nspec: {schedule: never, jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}}}\n",
        "spec.schedule: Invalid value: \"never\"",
    ),
    ("apiVersion: v1\nkind: Sail\nmetadata: {name: bad}\n", "no matches for kind \"Sail\" in version \"v1\""),
    ("apiVersion: v1\nkind: Secret\nmetadata: {name: bad}\ndata: {a: \"%%%\"}\n", "illegal base64"),
];

pub fn table(cluster: &Cluster) -> Result<()> {
    let before = cluster.tells("get configmaps,pods,services,deployments,cronjobs,secrets -o name")?;
    let mut wrong = Vec::new();
    for (yaml, wanted) in TABLE {
        let answer = cluster.kubectl_reading(yaml, "create -f -")?;
        if answer.success || !answer.err.contains(wanted) {
            wrong.push(format!(
                "{yaml}should be refused with {wanted:?}, but told: {}{}",
                answer.out, answer.err
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let after = cluster.tells("get configmaps,pods,services,deployments,cronjobs,secrets -o name")?;
    ensure!(before == after, "something was made: {after}");
    Ok(())
}

pub fn unknown_fields(cluster: &Cluster) -> Result<()> {
    // No controller writes a Service, which could come between what `kubectl replace` reads and what it puts.
    let yaml =
        "apiVersion: v1\nkind: Service\nmetadata: {name: typo}\nspec: {portz: 1, ports: [{port: 80}]}\n";
    let refused = cluster.kubectl_reading(yaml, "apply --validate=strict -f -")?.refused()?;
    ensure!(refused.contains("unknown field \"spec.portz\""), "{refused}");
    let warned = cluster.kubectl_reading(yaml, "apply --validate=warn -f -")?;
    ensure!(warned.success && warned.err.contains("unknown field \"spec.portz\""), "{warned:?}");
    let silent = cluster.kubectl_reading(yaml, "replace --validate=ignore -f -")?;
    ensure!(silent.success && !silent.err.contains("portz"), "{silent:?}");
    cluster.expect("delete service typo", "deleted")
}
