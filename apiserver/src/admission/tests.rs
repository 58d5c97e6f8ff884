//! The chain over a fake reader: what plugins fill in and refuse.

#![expect(clippy::needless_pass_by_value, reason = "the tables read better with values written in place")]

mod nodes;

use super::*;
use crate::reader::fake::Fake;
use serde_json::json;

const RBAC: &str = "rbac.authorization.k8s.io";

/// A write of `verb path-like resource`, by a user.
pub struct Write {
    request: RequestInfo,
    user: UserInfo,
    operation: &'static str,
    pub old: Option<Value>,
}

/// The usual plugins and these.
pub fn with(names: &[&str]) -> Plugins {
    let more = names.iter().map(ToString::to_string).collect();
    Plugins::new(&AdmissionArgs { enable_admission_plugins: more, ..AdmissionArgs::default() })
        .expect("plugins")
}

pub fn write(operation: &'static str, group: &str, resource: &str, namespace: &str, name: &str) -> Write {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let request = RequestInfo {
        is_resource: true,
        verb: operation.to_lowercase(),
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..RequestInfo::default()
    };
    let user = UserInfo { name: "jane".into(), ..UserInfo::default() };
    Write { request, user, operation, old: None }
}

impl Write {
    fn by_node(mut self, node: &str) -> Self {
        self.user.name = format!("system:node:{node}");
        self.user.groups = vec!["system:nodes".to_owned()];
        self
    }

    pub fn over(mut self, old: Value) -> Self {
        self.old = Some(old);
        self
    }

    pub fn attributes(&self) -> Attributes<'_> {
        Attributes {
            request: &self.request,
            user: &self.user,
            operation: self.operation,
            old: self.old.as_ref(),
            dry_run: false,
            options: &Value::Null,
        }
    }

    async fn run(&self, fake: &Arc<Fake>, object: Value) -> Result<Value, Status> {
        self.run_with(fake, with(&["NodeRestriction"]), object).await
    }

    pub async fn run_with(
        &self,
        fake: &Arc<Fake>,
        plugins: Plugins,
        mut object: Value,
    ) -> Result<Value, Status> {
        let admission = Admission::new(fake.clone(), fake.clone(), plugins);
        let attributes = self.attributes();
        admission.mutate(&attributes, &mut object).await?;
        admission.validate(&attributes, &object).await?;
        Ok(object)
    }

    async fn refused(&self, fake: &Arc<Fake>, object: Value) -> String {
        self.run(fake, object).await.expect_err("refused").message
    }
}

pub fn world() -> Arc<Fake> {
    Fake::with([
        ("", "namespaces", json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}})),
        ("", "namespaces", json!({"metadata": {"name": "kube-node-lease"}, "status": {"phase": "Active"}})),
        ("", "namespaces", json!({"metadata": {"name": "going"}, "status": {"phase": "Terminating"}})),
        (
            "",
            "serviceaccounts",
            json!({"metadata": {"namespace": "a", "name": "default"}, "imagePullSecrets": [{"name": "regcred"}]}),
        ),
        (
            "",
            "serviceaccounts",
            json!({"metadata": {"namespace": "a", "name": "quiet"}, "automountServiceAccountToken": false}),
        ),
        (
            "scheduling.k8s.io",
            "priorityclasses",
            json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}),
        ),
    ])
}

fn pod(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

fn container() -> Value {
    json!([{"name": "c", "image": "x"}])
}

#[tokio::test(start_paused = true)]
async fn namespaces_must_exist_and_stay() {
    let fake = world();
    let map = json!({"metadata": {"name": "c"}});
    let cases = [
        (write(CREATE, "", "configmaps", "none", ""), r#"namespaces "none" not found"#),
        (
            write(CREATE, "", "configmaps", "going", ""),
            r#"configmaps "c" is forbidden: unable to create new content in namespace going because it is being terminated"#,
        ),
        (
            write(DELETE, "", "namespaces", "default", "default"),
            r#"namespaces "default" is forbidden: this namespace may not be deleted"#,
        ),
    ];
    for (write, message) in cases {
        let object = if write.operation == DELETE { Value::Null } else { map.clone() };
        assert_eq!(write.refused(&fake, object).await, message);
    }
    let status =
        write(CREATE, "", "configmaps", "going", "").run(&fake, map.clone()).await.expect_err("going");
    assert_eq!(
        status.details["causes"],
        json!([{"reason": "NamespaceTerminating", "message": "namespace going is being terminated", "field": "metadata.namespace"}])
    );
    assert!(
        write(UPDATE, "", "configmaps", "going", "c").over(map.clone()).run(&fake, map.clone()).await.is_ok()
    );
    assert!(write(CREATE, "", "configmaps", "a", "").run(&fake, map).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_pod_gets_account_token_tolerations_and_priority() {
    let fake = world();
    let made = write(CREATE, "", "pods", "a", "")
        .run(&fake, pod("p", json!({"containers": container()})))
        .await
        .expect("made");
    let spec = &made["spec"];
    assert_eq!(
        (&spec["serviceAccountName"], &spec["serviceAccount"]),
        (&json!("default"), &json!("default"))
    );
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "regcred"}]));
    let volume = spec["volumes"][0]["name"].as_str().expect("volume");
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21, "{volume}");
    assert_eq!(
        spec["containers"][0]["volumeMounts"],
        json!([{"name": volume, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}])
    );
    assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    let quiet =
        json!({"containers": container(), "serviceAccountName": "quiet", "priorityClassName": "high"});
    let made = write(CREATE, "", "pods", "a", "").run(&fake, pod("q", quiet)).await.expect("made");
    assert_eq!(made["spec"]["volumes"], Value::Null);
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["preemptionPolicy"]),
        (&json!(1000), &json!("Never"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_asks_for_what_is_not_there_is_refused() {
    let fake = world();
    let cases = [
        (
            json!({"serviceAccountName": "none-such"}),
            r#"pods "p" is forbidden: error looking up service account a/none-such: serviceaccount "none-such" not found"#,
        ),
        (
            json!({"priorityClassName": "none-such"}),
            r#"pods "p" is forbidden: no PriorityClass with name none-such was found"#,
        ),
        (
            json!({"priority": 7}),
            r#"pods "p" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name"#,
        ),
        (
            json!({"runtimeClassName": "kata"}),
            r#"pods "p" is forbidden: pod rejected: RuntimeClass "kata" not found"#,
        ),
    ];
    for (spec, message) in cases {
        assert_eq!(write(CREATE, "", "pods", "a", "").refused(&fake, pod("p", spec)).await, message);
    }
}

#[tokio::test(start_paused = true)]
async fn classes_taints_and_finalizers_are_filled_in() {
    let fake = world();
    let class = |name: &str, made: &str| json!({"metadata": {"name": name, "creationTimestamp": made, "annotations": {"storageclass.kubernetes.io/is-default-class": "true", "ingressclass.kubernetes.io/is-default-class": "true"}}});
    for (name, made) in
        [("old", "2020-01-01T00:00:00Z"), ("b", "2024-01-01T00:00:00Z"), ("a", "2024-01-01T00:00:00Z")]
    {
        fake.put("storage.k8s.io", "storageclasses", class(name, made));
        fake.put("networking.k8s.io", "ingressclasses", class(name, made));
    }
    let empty = || json!({"metadata": {"name": "x"}, "spec": {}});
    let claim =
        write(CREATE, "", "persistentvolumeclaims", "a", "").run(&fake, empty()).await.expect("claim");
    assert_eq!(claim["spec"]["storageClassName"], json!("a"));
    assert_eq!(claim["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let ingress =
        write(CREATE, "networking.k8s.io", "ingresses", "a", "").run(&fake, empty()).await.expect("ingress");
    assert_eq!(ingress["spec"]["ingressClassName"], json!("a"));
    let node = write(CREATE, "", "nodes", "", "").run(&fake, empty()).await.expect("node");
    assert_eq!(
        node["spec"]["taints"],
        json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])
    );
}

#[tokio::test(start_paused = true)]
async fn roles_are_checked_for_escalation() {
    let fake = world();
    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    let message = write(CREATE, RBAC, "roles", "a", "").refused(&fake, role).await;
    assert!(
        message.starts_with(
            r#"roles.rbac.authorization.k8s.io "r" is forbidden: user "jane" (groups=[]) is attempting"#
        ),
        "{message}"
    );
}

/// A CertificateSigningRequest of a subject.
fn certificate(signer: &str, part: rcgen::DnType, name: &str) -> Value {
    use base64::Engine;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(part, name);
    let key = rcgen::KeyPair::generate().expect("key");
    let pem = params.serialize_request(&key).expect("request").pem().expect("pem");
    let text = base64::engine::general_purpose::STANDARD.encode(pem);
    json!({"metadata": {"name": "c"}, "spec": {"signerName": signer, "request": text}})
}

#[tokio::test(start_paused = true)]
async fn certificates_need_the_signers_permission() {
    let fake = world();
    let request = json!({"metadata": {"name": "c"}, "spec": {"signerName": "example.com/x"}});
    let approval = write(UPDATE, "certificates.k8s.io", "certificatesigningrequests/approval", "", "c")
        .over(request.clone());
    assert_eq!(
        approval.refused(&fake, request).await,
        r#"certificatesigningrequests.certificates.k8s.io "c" is forbidden: user not permitted to approve requests with signerName "example.com/x""#
    );
    let asked =
        certificate("kubernetes.io/kube-apiserver-client", rcgen::DnType::OrganizationName, "system:masters");
    assert_eq!(
        write(CREATE, "certificates.k8s.io", "certificatesigningrequests", "", "")
            .refused(&fake, asked)
            .await,
        r#"certificatesigningrequests.certificates.k8s.io "c" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"#
    );
}

#[tokio::test(start_paused = true)]
async fn limit_ranges_fill_in_and_refuse() {
    let fake = world();
    let range = |name: &str, item: Value| json!({"metadata": {"namespace": "a", "name": name}, "spec": {"limits": [item]}});
    fake.put("", "limitranges", range("l", json!({"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}})));
    let made = write(CREATE, "", "pods", "a", "")
        .run(&fake, pod("p", json!({"containers": container()})))
        .await
        .expect("made");
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        json!("LimitRanger plugin set: cpu request for container c; cpu limit for container c")
    );
    let with = |resources: Value| pod("big", json!({"containers": [{"name": "c", "resources": resources}]}));
    let big = with(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}));
    assert_eq!(
        write(CREATE, "", "pods", "a", "").refused(&fake, big).await,
        r#"pods "big" is forbidden: maximum cpu usage per Container is 1, but limit is 2"#
    );
    fake.put(
        "",
        "limitranges",
        range("m", json!({"type": "Pod", "min": {"memory": "1Gi"}, "maxLimitRequestRatio": {"cpu": "2"}})),
    );
    assert_eq!(
        write(CREATE, "", "pods", "a", "").refused(&fake, with(json!({}))).await,
        r#"pods "big" is forbidden: [minimum memory usage per Pod is 1Gi.  No request is specified, cpu max limit to request ratio per Pod is 2, but provided ratio is 5.000000]"#
    );
    fake.put(
        "",
        "limitranges",
        range("n", json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}})),
    );
    let claim = json!({"metadata": {"name": "c"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    assert_eq!(
        write(CREATE, "", "persistentvolumeclaims", "a", "").refused(&fake, claim).await,
        r#"persistentvolumeclaims "c" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"#
    );
}

#[tokio::test(start_paused = true)]
async fn a_resize_is_bounded_as_a_new_pod_is() {
    let fake = world();
    let spec = json!({"limits": [{"type": "Container", "max": {"cpu": "2"}}]});
    fake.put("", "limitranges", json!({"metadata": {"namespace": "a", "name": "l"}, "spec": spec}));
    let spec = json!({"hard": {"requests.cpu": "1"}});
    fake.put("", "resourcequotas", json!({"metadata": {"namespace": "a", "name": "q"}, "spec": spec}));
    let asks = |cpu: &str| {
        let resources = json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        let mut pod = pod("p", json!({"containers": [{"name": "c", "resources": resources}]}));
        pod["metadata"]["namespace"] = json!("a");
        pod
    };
    fake.put("", "pods", asks("600m"));
    let resize = || write(UPDATE, "", "pods/resize", "a", "p").over(asks("600m"));
    assert_eq!(
        resize().refused(&fake, asks("3")).await,
        r#"pods "p" is forbidden: maximum cpu usage per Container is 2, but limit is 3"#
    );
    assert_eq!(
        resize().refused(&fake, asks("1500m")).await,
        r#"pods "p" is forbidden: exceeded quota: q, requested: requests.cpu=900m, used: requests.cpu=600m, limited: requests.cpu=1"#
    );
    resize().run(&fake, asks("1")).await.expect("fits");
}

#[tokio::test(start_paused = true)]
async fn quotas_count_and_refuse() {
    let fake = world();
    let admission = Admission::new(fake.clone(), fake.clone(), with(&[]));
    let quota = |hard: Value| json!({"metadata": {"namespace": "a", "name": "q"}, "spec": {"hard": hard}});
    fake.put("", "resourcequotas", quota(json!({"pods": "2", "requests.cpu": "1", "count/secrets": "0"})));
    let create = |resource: &'static str| write(CREATE, "", resource, "a", "");
    let admit = async |write: &Write, object: &Value| {
        let attributes = Attributes {
            request: &write.request,
            user: &write.user,
            operation: write.operation,
            old: None,
            dry_run: false,
            options: &Value::Null,
        };
        admission.validate(&attributes, object).await.map_err(|status| status.message)
    };
    let asks = |name: &str, cpu: &str| {
        pod(name, json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
    };
    let pods = create("pods");
    assert_eq!(
        admit(&pods, &pod("bare", json!({"containers": container()}))).await.expect_err("bare"),
        r#"pods "bare" is forbidden: failed quota: q: must specify requests.cpu for: c"#
    );
    admit(&pods, &asks("one", "600m")).await.expect("fits");
    assert_eq!(
        admit(&pods, &asks("two", "600m")).await.expect_err("too much"),
        r#"pods "two" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1"#
    );
    let status =
        &fake.get(&GroupResource::new("", "resourcequotas"), "a", "q").expect("quota")["status"].clone();
    assert_eq!(status["used"], json!({"pods": "1", "requests.cpu": "600m", "count/secrets": "0"}));
    admit(&pods, &asks("two", "400m")).await.expect("fits");
    assert_eq!(
        admit(&pods, &asks("three", "0")).await.expect_err("too many"),
        r#"pods "three" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"#
    );
    // Once seen, an object counts once; once gone, not at all.
    let mut one = asks("one", "600m");
    one["metadata"]["namespace"] = json!("a");
    fake.put("", "pods", one);
    assert!(admit(&pods, &asks("three", "0")).await.is_err());
    assert_eq!(
        admit(&create("secrets"), &json!({"metadata": {"name": "s"}})).await.expect_err("none allowed"),
        r#"secrets "s" is forbidden: exceeded quota: q, requested: count/secrets=1, used: count/secrets=0, limited: count/secrets=0"#
    );
    assert!(admit(&create("configmaps"), &json!({"metadata": {"name": "c"}})).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn pod_security_follows_the_namespaces_labels() {
    let fake = world();
    let namespace =
        |labels: Value| json!({"metadata": {"name": "a", "labels": labels}, "status": {"phase": "Active"}});
    let labelled = namespace(
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"}),
    );
    fake.put("", "namespaces", labelled.clone());
    let admission = Admission::new(fake.clone(), fake.clone(), with(&[]));
    let check = async |write: Write, object: Value| {
        let attributes = Attributes {
            request: &write.request,
            user: &write.user,
            operation: write.operation,
            old: write.old.as_ref(),
            dry_run: false,
            options: &Value::Null,
        };
        admission.validate(&attributes, &object).await
    };
    let host = json!({"hostNetwork": true, "containers": container()});
    assert_eq!(
        check(write(CREATE, "", "pods", "a", ""), pod("p", host.clone())).await.expect_err("refused").message,
        r#"pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)"#
    );
    let warnings = check(write(CREATE, "", "pods", "a", ""), pod("p", json!({"containers": container()})))
        .await
        .expect("let in");
    assert!(warnings[0].starts_with(r#"would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "c""#), "{warnings:?}");
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": host.clone()}}});
    let warnings =
        check(write(CREATE, "apps", "deployments", "a", ""), deployment).await.expect("only warned");
    assert!(warnings[0].contains("host namespaces (hostNetwork=true)"), "{warnings:?}");
    fake.put("", "pods", json!({"metadata": {"namespace": "a", "name": "old"}, "spec": host}));
    let warnings = check(write(UPDATE, "", "namespaces", "a", "a").over(namespace(json!({}))), labelled)
        .await
        .expect("only warned");
    assert_eq!(
        warnings,
        [
            r#"existing pods in namespace "a" violate the new PodSecurity enforce level "baseline:latest""#,
            "old: host namespaces"
        ]
    );
    let typo = namespace(json!({"pod-security.kubernetes.io/enforce": "strict"}));
    assert_eq!(
        check(write(CREATE, "", "namespaces", "", ""), typo).await.expect_err("typo").message,
        r#"Namespace "a" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted"#
    );
}
