//! Authorization over a fake reader: RBAC, nodes, impersonation, reviews, escalation, bootstrap.

#![expect(clippy::needless_pass_by_value, reason = "the tables read better with values written in place")]

use super::*;
use crate::reader::fake::Fake;
use serde_json::{Value, json};

const RBAC: &str = "rbac.authorization.k8s.io";

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        name: name.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..UserInfo::default()
    }
}

/// `verb group/resource[/sub] namespace name`, `-` for empty.
fn request(text: &str) -> RequestInfo {
    let words: Vec<&str> = text.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
    let (group, resource) = words[1].split_once('/').expect("group/resource");
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    RequestInfo {
        is_resource: true,
        verb: words[0].to_owned(),
        group: group.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: words[2].to_owned(),
        name: words[3].to_owned(),
        ..RequestInfo::default()
    }
}

fn role(namespace: &str, name: &str, rules: Value) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "rules": rules})
}

fn binding(namespace: &str, kind: &str, role: &str, subject: Value) -> Value {
    json!({"metadata": {"namespace": namespace, "name": format!("{role}-binding")}, "roleRef": {"kind": kind, "name": role}, "subjects": [subject]})
}

fn world() -> Arc<Fake> {
    let pods = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
    Fake::with([
        (RBAC, "roles", role("a", "r", pods.clone())),
        (RBAC, "rolebindings", binding("a", "Role", "r", json!({"kind": "Group", "name": "dev"}))),
        (RBAC, "rolebindings", binding("a", "Role", "gone", json!({"kind": "User", "name": "lost"}))),
        (RBAC, "clusterroles", role("", "reader", pods)),
        (
            RBAC,
            "rolebindings",
            binding("b", "ClusterRole", "reader", json!({"kind": "ServiceAccount", "name": "robot"})),
        ),
        (
            RBAC,
            "clusterroles",
            role(
                "",
                "impersonator",
                json!([{"apiGroups": [""], "resources": ["users", "groups"], "verbs": ["impersonate"]}]),
            ),
        ),
        (
            RBAC,
            "clusterrolebindings",
            binding("", "ClusterRole", "impersonator", json!({"kind": "User", "name": "proxy"})),
        ),
    ])
}

#[tokio::test]
async fn rbac_allows_what_bindings_say_and_tells_the_rest_as_kubernetes_does() {
    let authorization = Authorization::new(world());
    let jane = user("jane", &["dev"]);
    let cases = [
        (&jane, "list /pods a -", ""),
        (&jane, "get /pods a none", ""),
        (
            &jane,
            "delete /pods a none",
            r#"pods "none" is forbidden: User "jane" cannot delete resource "pods" in API group "" in the namespace "a""#,
        ),
        (
            &jane,
            "get /pods/log a none",
            r#"pods "none" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "a""#,
        ),
        (
            &jane,
            "list /nodes - -",
            r#"nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope"#,
        ),
        (
            &jane,
            "create apps/deployments b -",
            r#"deployments.apps is forbidden: User "jane" cannot create resource "deployments" in API group "apps" in the namespace "b""#,
        ),
        (
            &user("lost", &[]),
            "get /pods a x",
            r#"pods "x" is forbidden: User "lost" cannot get resource "pods" in API group "" in the namespace "a": RBAC: role.rbac.authorization.k8s.io "gone" not found"#,
        ),
        (&user("system:serviceaccount:b:robot", &[]), "get /pods b x", ""),
        (&user("root", &["system:masters"]), "delete /nodes - x", ""),
    ];
    for (user, asked, message) in cases {
        let told = authorization.authorize(user, &request(asked)).await.err();
        assert_eq!(told.map(|status| status.message).unwrap_or_default(), message, "{} {asked}", user.name);
    }
    let metrics = RequestInfo { verb: "get".into(), path: "/metrics".into(), ..RequestInfo::default() };
    let status = authorization.authorize(&jane, &metrics).await.expect_err("forbidden");
    assert_eq!(status.message, r#"forbidden: User "jane" cannot get path "/metrics""#);
    assert_eq!(status.to_value()["details"], json!({}));
}

#[tokio::test]
async fn a_changed_binding_counts_at_once() {
    let fake = world();
    let authorization = Authorization::new(fake.clone());
    let (jane, asked) = (user("jane", &["dev"]), request("get /pods a x"));
    assert!(authorization.authorize(&jane, &asked).await.is_ok());
    fake.remove(RBAC, "rolebindings", "a", "r-binding");
    assert!(authorization.authorize(&jane, &asked).await.is_err());
}

#[tokio::test]
async fn aggregated_roles_hold_what_they_choose() {
    let fake = world();
    let mut view = role("", "view", json!([]));
    view["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"to-view": "true"}}]});
    let mut part =
        role("", "part", json!([{"apiGroups": ["x.io"], "resources": ["widgets"], "verbs": ["get"]}]));
    part["metadata"]["labels"] = json!({"to-view": "true"});
    fake.put(RBAC, "clusterroles", view);
    fake.put(RBAC, "clusterroles", part);
    fake.put(
        RBAC,
        "clusterrolebindings",
        binding("", "ClusterRole", "view", json!({"kind": "User", "name": "eve"})),
    );
    let authorization = Authorization::new(fake);
    assert!(authorization.authorize(&user("eve", &[]), &request("get x.io/widgets a w")).await.is_ok());
}

/// A pod of node n1 that refers to objects in every way, and one of another node.
fn two_nodes() -> Arc<Fake> {
    let pod = |name: &str, node: &str, more: Value| {
        let mut spec = json!({"nodeName": node, "serviceAccountName": format!("{name}-sa")});
        spec.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
        json!({"metadata": {"namespace": "a", "name": name}, "spec": spec})
    };
    Fake::with([
        (
            "",
            "pods",
            pod(
                "mine",
                "n1",
                json!({
            "volumes": [{"name": "v", "secret": {"secretName": "s1"}}, {"name": "w", "persistentVolumeClaim": {"claimName": "c1"}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "m1"}}]}}],
            "containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}}]}],
            "imagePullSecrets": [{"name": "s3"}]}),
            ),
        ),
        ("", "pods", pod("other", "n2", json!({"volumes": [{"name": "v", "secret": {"secretName": "s9"}}]}))),
        (
            "",
            "pods",
            json!({"metadata": {"namespace": "a", "name": "mirror", "annotations": {"kubernetes.io/config.mirror": "x"}},
                "spec": {"nodeName": "n1", "volumes": [{"name": "v", "secret": {"secretName": "s9"}}]}}),
        ),
        ("", "persistentvolumes", volume("pv1", "c1", "vs1")),
        ("", "persistentvolumes", volume("pv2", "c2", "vs2")),
        ("resource.k8s.io", "resourceslices", slice("mine", "n1")),
        ("resource.k8s.io", "resourceslices", slice("other", "n2")),
    ])
}

/// A volume that is bound to a claim and mounted with a secret of namespace `b`.
fn volume(name: &str, claim: &str, secret: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "claimRef": {"namespace": "a", "name": claim},
        "csi": {"driver": "d", "nodeStageSecretRef": {"namespace": "b", "name": secret},
            "controllerPublishSecretRef": {"namespace": "b", "name": "not-for-nodes"}}}})
}

fn slice(name: &str, node: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"nodeName": node}})
}

#[test]
fn a_node_reaches_only_what_its_pods_need() {
    let authorization = Authorization::new(two_nodes());
    let node = user("system:node:n1", &["system:nodes", "system:authenticated"]);
    let unrelated = "no relationship found between node 'n1' and this object";
    let cases = [
        ("get /secrets a s1", ""),
        ("watch /secrets a s2", ""),
        ("get /secrets a s3", ""),
        ("get /secrets a s9", unrelated),
        ("get /secrets a mine", unrelated),
        ("list /secrets a -", "No Object name found"),
        ("list /secrets - -", "can only read namespaced object of this type"),
        ("delete /secrets a s1", "can only read resources of this type"),
        ("get /configmaps a m1", ""),
        ("get /configmaps a s1", unrelated),
        ("get /persistentvolumeclaims a c1", ""),
        ("get /persistentvolumes - pv1", ""),
        ("get /persistentvolumes - pv2", unrelated),
        ("create /serviceaccounts/token a mine-sa", ""),
        ("create /serviceaccounts/token a other-sa", unrelated),
        ("update coordination.k8s.io/leases kube-node-lease n1", ""),
        (
            "update coordination.k8s.io/leases kube-node-lease n2",
            "can only access node lease with the same name as the requesting node",
        ),
        (
            "update coordination.k8s.io/leases kube-system n1",
            "can only access leases in the \"kube-node-lease\" system namespace",
        ),
        ("create /nodes - -", ""),
        ("patch /nodes/status - n1", ""),
        ("delete /nodes - n1", "-"),
        ("get /nodes - n1", ""),
        ("watch /nodes - n1", ""),
        ("get /nodes - n2", "node 'n1' cannot read 'n2', only its own Node object"),
        ("list /nodes - -", "node 'n1' cannot read all nodes, only its own Node object"),
        ("get /nodes/status - n1", "-"),
        ("patch /pods/status a mine", ""),
        ("get /pods a mine", ""),
        ("get /pods a other", unrelated),
        ("list /pods - -", "can only list/watch pods with spec.nodeName field selector"),
        ("list /services - -", ""),
        ("list /endpoints - -", "-"),
    ];
    answers(&authorization, &node, &cases);
    assert!(authorization.decide_now(&user("system:node:n1", &[]), &request("get /secrets a s1")).is_err());
}

/// Asks, and compares the reasons: none of what is allowed, `-` where none is told.
fn answers(authorization: &Authorization, user: &UserInfo, cases: &[(&str, &str)]) {
    for (asked, reason) in cases {
        let told = authorization.decide_now(user, &request(asked)).err().map(|refused| refused.reason);
        match *reason {
            "" => assert_eq!(told, None, "{asked}"),
            "-" => assert_eq!(told.as_deref(), Some(""), "{asked}"),
            reason => assert_eq!(told.as_deref(), Some(reason), "{asked}"),
        }
    }
}

#[test]
fn a_node_reaches_its_volumes_slices_and_accounts() {
    let authorization = Authorization::new(two_nodes());
    let node = user("system:node:n1", &["system:nodes", "system:authenticated"]);
    let unrelated = "no relationship found between node 'n1' and this object";
    let cases = [
        ("get /secrets b vs1", ""),
        ("get /secrets b vs2", unrelated),
        ("get /secrets a vs1", unrelated),
        ("get /secrets b not-for-nodes", unrelated),
        ("patch /persistentvolumeclaims/status a c1", ""),
        ("get /persistentvolumeclaims/status a c1", "can only get/update/patch this type"),
        ("get /serviceaccounts a mine-sa", "not allowed to get service accounts"),
        ("update /serviceaccounts/token a mine-sa", "can only create tokens for individual service accounts"),
        ("create /serviceaccounts/x a mine-sa", "can only create token subresource of serviceaccount"),
        ("create resource.k8s.io/resourceslices - -", ""),
        ("update resource.k8s.io/resourceslices - mine", ""),
        ("delete resource.k8s.io/resourceslices - other", unrelated),
        ("get resource.k8s.io/resourceslices/x - mine", "cannot authorize ResourceSlice subresources"),
        (
            "list resource.k8s.io/resourceslices - -",
            "can only list/watch/deletecollection resourceslices with nodeName field selector",
        ),
    ];
    answers(&authorization, &node, &cases);
}

#[test]
fn a_node_lists_what_a_selector_narrows_to_its_own() {
    let authorization = Authorization::new(two_nodes());
    let node = user("system:node:n1", &["system:nodes", "system:authenticated"]);
    for (asked, selector, allowed) in [
        ("watch /pods - -", "spec.nodeName=n1", true),
        ("watch /pods - -", "status.phase!=Failed,spec.nodeName==n1", true),
        ("list /pods - -", "spec.nodeName!=n1", false),
        ("list /pods - -", "spec.nodeName=n2", false),
        ("list /pods - -", "metadata.namespace=a", false),
        ("deletecollection resource.k8s.io/resourceslices - -", "spec.nodeName=n1,spec.driver=d", true),
        ("deletecollection resource.k8s.io/resourceslices - -", "spec.nodeName=n2", false),
    ] {
        let mut own = request(asked);
        own.field_selector = selector.to_owned();
        assert_eq!(authorization.decide_now(&node, &own).is_ok(), allowed, "{asked} {selector}");
    }
}

#[tokio::test]
async fn impersonation_takes_a_permission_for_each_part() {
    let authorization = Authorization::new(world());
    let headers = |pairs: &[(&'static str, &str)]| {
        let mut map = http::HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().expect("value"));
        }
        map
    };
    let proxy = user("proxy", &["system:authenticated"]);
    let jane = headers(&[("impersonate-user", "jane"), ("impersonate-group", "dev")]);
    let run_as = authorization.impersonated(proxy.clone(), &jane).await.expect("allowed");
    assert_eq!(run_as, user("jane", &["dev", "system:authenticated"]));
    let refused = authorization.impersonated(user("eve", &[]), &jane).await.expect_err("forbidden");
    assert_eq!(
        refused.message,
        r#"users "jane" is forbidden: User "eve" cannot impersonate resource "users" in API group "" at the cluster scope"#
    );
    let extra = headers(&[("impersonate-user", "jane"), ("impersonate-extra-scopes", "x")]);
    let refused = authorization.impersonated(proxy.clone(), &extra).await.expect_err("forbidden");
    assert_eq!(
        refused.message,
        r#"userextras.authentication.k8s.io "x" is forbidden: User "proxy" cannot impersonate resource "userextras/scopes" in API group "authentication.k8s.io" at the cluster scope"#
    );
    let groups =
        headers(&[("impersonate-group", "dev"), ("impersonate-uid", "u"), ("impersonate-extra-a", "x")]);
    let refused = authorization.impersonated(proxy.clone(), &groups).await.expect_err("no user");
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (
            500,
            "requested [{Group  dev    } {UserExtra  x  authentication.k8s.io/v1  a} {UID  u  authentication.k8s.io/v1  }] without impersonating a user"
        )
    );
    let nobody =
        headers(&[("impersonate-user", "system:anonymous"), ("impersonate-group", "system:authenticated")]);
    let run_as =
        authorization.impersonated(user("root", &["system:masters"]), &nobody).await.expect("allowed");
    assert_eq!(run_as.groups, ["system:authenticated", "system:unauthenticated"]);
    let masters = user("root", &["system:masters"]);
    let robot = headers(&[("impersonate-user", "system:serviceaccount:b:robot")]);
    let run_as = authorization.impersonated(masters, &robot).await.expect("allowed");
    assert_eq!(run_as.groups, ["system:serviceaccounts", "system:serviceaccounts:b", "system:authenticated"]);
    assert_eq!(authorization.impersonated(proxy.clone(), &http::HeaderMap::new()).await, Ok(proxy));
}

#[tokio::test]
async fn access_reviews_answer_with_reasons() {
    let authorization = Authorization::new(world());
    let asked = json!({"spec": {"user": "jane", "groups": ["dev"], "resourceAttributes": {"namespace": "a", "verb": "get", "resource": "pods"}}});
    let answer = authorization.review("SubjectAccessReview", &user("x", &[]), asked).await;
    assert_eq!(
        answer["status"],
        json!({"allowed": true, "reason": r#"RBAC: allowed by RoleBinding "r-binding/a" of Role "r" to Group "dev""#})
    );
    let own = json!({"spec": {"resourceAttributes": {"namespace": "a", "verb": "get", "resource": "pods"}}});
    let answer = authorization.review("SelfSubjectAccessReview", &user("x", &[]), own.clone()).await;
    assert_eq!(answer["status"], json!({"allowed": false}));
    assert_eq!(super::check_review("SubjectAccessReview", &own).expect_err("no user").code, 422);
    let rules = json!({"spec": {"namespace": "a"}});
    let answer = authorization.review("SelfSubjectRulesReview", &user("jane", &["dev"]), rules).await;
    assert_eq!(
        answer["status"]["resourceRules"],
        json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}])
    );
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let authorization = Authorization::new(world());
    let jane = user("jane", &["dev"]);
    let writes = |resource: &str| RequestInfo {
        group: RBAC.into(),
        resource: resource.into(),
        namespace: "a".into(),
        verb: "create".into(),
        is_resource: true,
        ..RequestInfo::default()
    };
    let check = async |resource: &str, object: &Value| {
        authorization.check_escalation(&jane, &writes(resource), object, None).await
    };
    let held = role("a", "new", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]));
    assert_eq!(check("roles", &held).await, Ok(()));
    let more =
        role("a", "new", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "delete"]}]));
    assert_eq!(
        check("roles", &more).await.expect_err("more").message,
        "roles.rbac.authorization.k8s.io \"new\" is forbidden: user \"jane\" (groups=[\"dev\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
    );
    let subject = json!({"kind": "User", "name": "eve"});
    assert_eq!(check("rolebindings", &binding("a", "Role", "r", subject.clone())).await, Ok(()));
    assert_eq!(
        check("rolebindings", &binding("a", "ClusterRole", "impersonator", subject.clone()))
            .await
            .expect_err("more")
            .code,
        403
    );
    assert_eq!(
        check("rolebindings", &binding("a", "Role", "none", subject)).await.expect_err("none").message,
        r#"role.rbac.authorization.k8s.io "none" not found"#
    );
    let same = authorization.check_escalation(&jane, &writes("roles"), &more, Some(&more)).await;
    assert_eq!(same, Ok(()));
}

#[tokio::test]
async fn bootstrap_makes_every_role_once_and_repairs_what_is_missing() {
    let fake = Fake::with([]);
    bootstrap(fake.as_ref()).await.expect("made");
    let roles = fake.list(&GroupResource::new(RBAC, "clusterroles"), "");
    assert_eq!(roles.len(), 66);
    let rules = |name: &str| {
        roles.iter().find(|role| role["metadata"]["name"] == name).expect(name)["rules"]
            .as_array()
            .map_or(0, Vec::len)
    };
    assert!(rules("system:node") > 0);
    assert_eq!(rules("view"), 0, "a controller writes what is aggregated");
    let writes = fake.writes();
    bootstrap(fake.as_ref()).await.expect("unchanged");
    assert_eq!(fake.writes(), writes, "nothing to change, nothing written");

    let of = GroupResource::new(RBAC, "clusterroles");
    let mut broken = fake.get(&of, "", "system:discovery").expect("role").as_ref().clone();
    let whole = broken.clone();
    broken["rules"] = json!([{"verbs": ["get"], "nonResourceURLs": ["/extra"]}]);
    fake.put(RBAC, "clusterroles", broken.clone());
    bootstrap(fake.as_ref()).await.expect("repaired");
    let repaired = Rule::parse_all(&fake.get(&of, "", "system:discovery").expect("role")["rules"]);
    assert!(rule::missing(&repaired, &Rule::parse_all(&whole["rules"])).is_empty());
    assert!(repaired.iter().any(|rule| rule.non_resource_urls == ["/extra"]), "what people added stays");

    broken["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = json!("false");
    fake.put(RBAC, "clusterroles", broken.clone());
    bootstrap(fake.as_ref()).await.expect("left alone");
    assert_eq!(*fake.get(&of, "", "system:discovery").expect("role"), broken);

    let authorization = Authorization::new(fake);
    let health = RequestInfo { verb: "get".into(), path: "/healthz".into(), ..RequestInfo::default() };
    assert!(
        authorization
            .authorize(&user("system:anonymous", &["system:unauthenticated"]), &health)
            .await
            .is_ok()
    );
    assert!(
        authorization
            .authorize(&user("system:kube-scheduler", &[]), &request("create /pods/binding a p"))
            .await
            .is_ok()
    );
    assert!(
        authorization
            .authorize(&user("system:kube-scheduler", &[]), &request("get /secrets a p"))
            .await
            .is_err()
    );
}
