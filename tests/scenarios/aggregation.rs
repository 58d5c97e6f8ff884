//! Group versions of other servers.

use anyhow::{Result, ensure};
use coracle_tests::{Cluster, Deadline};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

const API: &str = "apiservice v1.example.test";

/// A server of widgets: it believes the front proxy alone, and names its only widget after whoever asks.
const SITE: &str = r#"server {
  listen 8443 ssl;
  ssl_certificate /certs/tls.crt;
  ssl_certificate_key /certs/tls.key;
  ssl_client_certificate /proxy/ca.crt;
  ssl_verify_client on;
  default_type application/json;
  location = /apis/example.test/v1 {
    return 200 '{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"example.test/v1","resources":[{"name":"widgets","singularName":"widget","namespaced":true,"kind":"Widget","verbs":["get","list"]}]}';
  }
  location /apis/example.test/v1/ {
    return 200 '{"kind":"WidgetList","apiVersion":"example.test/v1","metadata":{"resourceVersion":"1"},"items":[{"kind":"Widget","apiVersion":"example.test/v1","metadata":{"name":"$http_x_remote_user","namespace":"default"}}]}';
  }
}
"#;

fn api(bundle: Option<&str>) -> Value {
    let mut api = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.example.test"},
        "spec": {"group": "example.test", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
            "service": {"namespace": "default", "name": "widgets"}}});
    if let Some(bundle) = bundle {
        api["spec"]["caBundle"] = json!(bundle);
    }
    api
}

/// What an API needs that nobody serves: it says so, and nothing else suffers.
pub fn unavailable(cluster: &Cluster) -> Result<()> {
    cluster.expect("get apiservice v1.apps --no-headers", "Local")?;
    cluster.apply(&api(None).to_string())?;
    cluster.tells(&format!("wait {API} --for=condition=Available=False --timeout=30s"))?;
    cluster.expect(&format!("get {API} --no-headers"), "default/widgets   False (ServiceNotFound)")?;
    cluster.refuses(
        "get --raw /apis/example.test/v1/widgets",
        "the server is currently unable to handle the request",
    )?;
    cluster.expect("get nodes --no-headers", " Ready ")?;
    // What is in it is not known: no namespace goes meanwhile.
    cluster.tells("create namespace waits")?;
    cluster.tells("delete namespace waits --wait=false")?;
    let failing = "--for=condition=NamespaceDeletionDiscoveryFailure --timeout=30s";
    cluster.tells(&format!("wait namespace waits {failing}"))?;
    cluster.tells(&format!("delete {API}"))?;
    cluster.tells("wait namespace waits --for=delete --timeout=60s")?;
    cluster.refuses("get --raw /apis/example.test/v1/widgets", "NotFound")
}

/// A CA and a certificate of it for the server, as PEM: CA, certificate, key.
fn certificates() -> Result<(String, String, String)> {
    let ca_key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key)?.pem();
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["widgets.default.svc".to_owned()])?;
    let leaf = leaf.signed_by(&key, &Issuer::new(params, ca_key))?;
    Ok((ca, leaf.pem(), key.serialize_pem()))
}

/// The server's objects.
fn server(cluster: &Cluster) -> Result<Value> {
    let (authority, certificate, key) = certificates()?;
    let trusted = cluster.tells("get configmap -n kube-system extension-apiserver-authentication -o json")?;
    let trusted: Value = serde_json::from_str(&trusted)?;
    let labels = json!({"app": "widgets"});
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let container = json!({"name": "server", "image": "nginx",
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
        "volumeMounts": [mount("site", "/etc/nginx/conf.d"), mount("certs", "/certs"), mount("proxy", "/proxy")]});
    let volumes = json!([{"name": "site", "configMap": {"name": "site"}}, {"name": "proxy", "configMap": {"name": "proxy"}},
        {"name": "certs", "secret": {"secretName": "certs"}}]);
    let items = json!([
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "site"}, "data": {"widgets.conf": SITE}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "proxy"},
            "data": {"ca.crt": trusted["data"]["requestheader-client-ca-file"]}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "certs"}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": certificate, "tls.key": key}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "widgets"},
            "spec": {"selector": labels, "ports": [{"port": 443, "targetPort": 8443}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "widgets"},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [container], "volumes": volumes}}}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "authority"}, "stringData": {"ca.crt": authority}},
    ]);
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

/// A server in a pod is asked in the caller's name, while it is there.
pub fn extension(cluster: &Cluster) -> Result<()> {
    cluster.apply(&server(cluster)?.to_string())?;
    let bundle = cluster.tells("get secret authority -o jsonpath={.data.ca\\.crt}")?;
    cluster.apply(&api(Some(&bundle)).to_string())?;
    cluster.tells(&format!("wait {API} --for=condition=Available --timeout=60s"))?;
    cluster.until("that both apiservers know widgets", Deadline::seconds(30), |cluster| {
        Ok(cluster.kubectl("api-resources --api-group=example.test --no-headers")?.out.contains("widgets"))
    })?;
    cluster.expect("get widgets -o name", "widget.example.test/kubernetes-admin")?;
    cluster
        .refuses("get widgets --as=ann", "cannot list resource \"widgets\" in API group \"example.test\"")?;
    cluster.tells("create clusterrole widgets --verb=get,list --resource=widgets.example.test")?;
    cluster.tells("create clusterrolebinding ann-widgets --clusterrole=widgets --user=ann")?;
    cluster.expect("get widgets --as=ann -o name", "widget.example.test/ann")?;
    cluster.tells("scale deployment widgets --replicas=0")?;
    cluster.tells(&format!("wait {API} --for=condition=Available=False --timeout=60s"))?;
    let told = cluster.kubectl("get --raw /apis/example.test/v1/widgets")?.refused()?;
    ensure!(told.contains("unable to handle the request"), "{told}");
    cluster.tells(&format!("delete {API}"))?;
    cluster.tells("delete deployment/widgets service/widgets secret/certs secret/authority configmap/site configmap/proxy")?;
    cluster.tells("delete clusterrole/widgets clusterrolebinding/ann-widgets").map(|_| ())
}
