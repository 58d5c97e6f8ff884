//! What a request is about, read from its method, path and query exactly as Kubernetes does (`RequestInfo`).

use crate::request::{RequestInfo, escapes_are_whole, unescaped};
use coracle_api::kinds;
use coracle_api::labels;
use coracle_api::selector::FieldSelector;
use http::Method;
use url::form_urlencoded;

/// A query as decoded pairs.
pub type Pairs = Vec<(String, String)>;

/// Decodes a query, without the pairs that Go does not take: those with a semicolon or a broken escape.
#[must_use]
pub fn pairs(query: Option<&str>) -> Pairs {
    let taken =
        query.unwrap_or_default().split('&').filter(|pair| !pair.contains(';') && escapes_are_whole(pair));
    taken.flat_map(|pair| form_urlencoded::parse(pair.as_bytes()).into_owned()).collect()
}

fn first<'a>(query: &'a Pairs, name: &str) -> &'a str {
    query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// Subresources of a namespace itself; everything else after a namespace's name is inside it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Reads a request.
#[must_use]
pub fn parse(method: &Method, path: &str, query: &Pairs) -> RequestInfo {
    let path = unescaped(path);
    let mut info =
        RequestInfo { verb: method.as_str().to_lowercase(), path: path.clone(), ..RequestInfo::default() };
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let mut rest = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => {
            info.version = (*version).to_owned();
            rest
        }
        ["apis", group, version, rest @ ..] if !rest.is_empty() => {
            (info.group, info.version) = ((*group).to_owned(), (*version).to_owned());
            rest
        }
        _ => return info,
    };
    info.is_resource = true;
    info.verb = match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
    .to_owned();
    // The deprecated form of watches, and that of proxies, which no kind serves any more.
    if let [special @ ("watch" | "proxy"), inner @ ..] = rest
        && !inner.is_empty()
    {
        info.verb = (*special).to_owned();
        rest = inner;
    }
    if let ["namespaces", namespace, inner @ ..] = rest {
        info.namespace = (*namespace).to_owned();
        if let [first, ..] = inner
            && !NAMESPACE_SUBRESOURCES.contains(first)
        {
            rest = inner;
        }
    }
    let mut told = rest.iter();
    info.resource = told.next().map(|part| (*part).to_owned()).unwrap_or_default();
    info.name = told.next().map(|part| (*part).to_owned()).unwrap_or_default();
    if info.verb != "proxy" {
        info.subresource = told.next().map(|part| (*part).to_owned()).unwrap_or_default();
    }
    info.rest = told.copied().collect::<Vec<_>>().join("/");
    if !info.rest.is_empty() && path.ends_with('/') {
        info.rest.push('/');
    }
    info.kind = kinds::by_resource(&info.group, &info.version, &info.resource).cloned();
    collections(&mut info, query);
    info
}

/// Why it cannot be told what a path is about: it says how to look at something, and not at what.
#[must_use]
pub fn fault(info: &RequestInfo) -> Option<String> {
    let special = matches!(info.resource.as_str(), "watch" | "proxy");
    (special && info.is_resource && info.name.is_empty() && info.namespace.is_empty())
        .then(|| format!("unable to determine kind and namespace from url, {}", info.path))
}

/// Whether a path is within a namespace that has no name.
#[must_use]
pub fn is_within_nothing(info: &RequestInfo) -> bool {
    info.is_resource && info.namespace.is_empty() && info.path.contains("/namespaces//")
}

/// Requests without a name are about collections.
fn collections(info: &mut RequestInfo, query: &Pairs) {
    if info.name.is_empty() {
        let watches = !matches!(first(query, "watch"), "" | "0" | "false" | "False");
        match info.verb.as_str() {
            "get" if watches => info.verb = "watch".to_owned(),
            "get" => info.verb = "list".to_owned(),
            "delete" => info.verb = "deletecollection".to_owned(),
            _ => {}
        }
    }
    if matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
        info.field_selector = first(query, "fieldSelector").to_owned();
        info.label_selector = first(query, "labelSelector").to_owned();
        if info.name.is_empty()
            && let Ok(selector) = FieldSelector::parse_any(&info.field_selector)
            && let Some(name) = selector.exact("metadata.name")
            && labels::is_path_segment_name(name).is_empty()
        {
            info.name = name.to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_pairs_of_a_query_are_none() {
        let told = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pairs(Some("limit=1;x&a=%zz&b=%4&c=%41&&d")), [told("c", "A"), told("d", "")]);
    }

    #[test]
    fn paths_are_read_as_kubernetes_reads_them() {
        // method, path, query → verb, group, namespace, resource, name, subresource
        let rows = [
            ("GET", "/api/v1/pods", "", ["list", "", "", "pods", "", ""]),
            ("GET", "/api/v1/pods", "watch=1", ["watch", "", "", "pods", "", ""]),
            ("GET", "/api/v1/namespaces/a/pods/p/log", "", ["get", "", "a", "pods", "p", "log"]),
            ("GET", "/api/v1/namespaces/a", "", ["get", "", "a", "namespaces", "a", ""]),
            ("PUT", "/api/v1/namespaces/a/finalize", "", ["update", "", "a", "namespaces", "a", "finalize"]),
            (
                "POST",
                "/apis/apps/v1/namespaces/a/deployments",
                "",
                ["create", "apps", "a", "deployments", "", ""],
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "",
                ["deletecollection", "apps", "a", "deployments", "", ""],
            ),
            ("GET", "/api/v1/nodes", "fieldSelector=metadata.name%3Dn", ["list", "", "", "nodes", "n", ""]),
            ("GET", "/api/v1/watch/pods", "", ["watch", "", "", "pods", "", ""]),
            ("PUT", "/api/v1/proxy/namespaces/a/pods/p/log", "", ["proxy", "", "a", "pods", "p", ""]),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "",
                ["get", "rbac.authorization.k8s.io", "", "clusterroles", "system:node", ""],
            ),
        ];
        for (method, path, query, want) in rows {
            let method = method.parse().expect("method");
            let info = parse(&method, path, &pairs(Some(query)));
            assert!(info.is_resource);
            let got =
                [&info.verb, &info.group, &info.namespace, &info.resource, &info.name, &info.subresource];
            assert_eq!(got.map(String::as_str), want, "{path}");
        }
        for path in ["/healthz", "/api", "/api/v1", "/apis/apps/v1", "/"] {
            assert!(!parse(&Method::GET, path, &Vec::new()).is_resource, "{path}");
        }
    }
}
