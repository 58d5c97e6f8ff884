//! Services, their endpoints, and what leads to them.

use super::*;

fn service(fields: &Value) -> Value {
    let mut object = json!({"spec": {"ports": [{"port": 80}]}});
    for (key, value) in fields.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}

#[test]
fn services_are_judged_in_the_order_of_kubernetes() {
    let rows: &[(Value, &[&str])] = &[
        (
            json!({"type": "NodePort", "clusterIP": "None", "clusterIPs": ["None"], "sessionAffinity": "x"}),
            &[
                r#"spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for NodePort services"#,
                r#"spec.sessionAffinity: Unsupported value: "x": supported values: "ClientIP", "None""#,
            ],
        ),
        (
            json!({"type": "ExternalName", "ipFamilies": ["IPv4"], "externalTrafficPolicy": "Local"}),
            &[
                "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
                "spec.externalName: Required value",
                r#"spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services"#,
            ],
        ),
        (
            json!({"ports": [{"name": "a", "port": 80, "nodePort": 3}, {"port": 80}]}),
            &[
                "spec.ports[1].name: Required value",
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
                r#"spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}"#,
            ],
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}),
            &[
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400",
            ],
        ),
        (
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2", "None"]}),
            &[
                r#"spec.clusterIPs[2]: Invalid value: "None": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
                r#"spec.clusterIPs: Invalid value: ["10.0.0.1","10.0.0.2","None"]: may only hold up to 2 values"#,
            ],
        ),
        (
            json!({"loadBalancerSourceRanges": ["10.0.0.0/33"], "loadBalancerClass": "x", "trafficDistribution": "x"}),
            &[
                "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                r#"spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.0/33": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#,
                "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
                r#"spec.trafficDistribution: Unsupported value: "x": supported values: "PreferClose""#,
            ],
        ),
        (
            json!({"externalIPs": ["x", "127.0.0.1", "169.254.0.1", "0.0.0.0"]}),
            &[
                r#"spec.externalIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
                r#"spec.externalIPs[1]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)"#,
                r#"spec.externalIPs[2]: Invalid value: "169.254.0.1": may not be in the link-local range (169.254.0.0/16, fe80::/10)"#,
                r#"spec.externalIPs[3]: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)"#,
            ],
        ),
    ];
    for (fields, want) in rows {
        refuses("Service", service(fields), want);
    }
}

#[test]
fn services_keep_their_first_address() {
    let stored = json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
    let other = json!({"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
    let want = r#"spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set"#;
    refuses_change("Service", service(&stored), service(&other), &[want]);
    let balanced = |fields: Value| {
        let mut object = service(&fields);
        object["spec"]["type"] = json!("LoadBalancer");
        object
    };
    refuses_change(
        "Service",
        balanced(json!({"loadBalancerClass": "a.b/c"})),
        balanced(json!({})),
        &[r#"spec.loadBalancerClass: Invalid value: "null": may not change once set"#],
    );
    let mut new = balanced(json!({}));
    new["status"] = json!({"loadBalancer": {"ingress": [
        {"ip": "x", "ipMode": "y"}, {"ipMode": "VIP"}, {"hostname": "1.2.3.4"}]}});
    refuses_write(
        "Service",
        "status",
        balanced(json!({})),
        new,
        &[
            r#"status.loadBalancer.ingress[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
            r#"status.loadBalancer.ingress[0].ipMode: Unsupported value: "y": supported values: "Proxy", "VIP""#,
            "status.loadBalancer.ingress[1].ipMode: Forbidden: may not be specified when `ip` is not set",
            r#"status.loadBalancer.ingress[2].hostname: Invalid value: "1.2.3.4": must be a DNS name, not an IP address"#,
        ],
    );
}

#[test]
fn endpoints_name_the_field_at_fault() {
    let slice = json!({
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["::1"]}, {"addresses": []}, {"addresses": ["10.0.0.1"], "nodeName": "A", "hints": {"forZones": [{"name": "a"}, {"name": "a"}]}}],
        "ports": [{"name": "a"}, {"name": "a", "protocol": "x"}],
    });
    refuses(
        "EndpointSlice",
        slice,
        &[
            r#"endpoints[0].addresses: Invalid value: "::1": must be an IPv4 address"#,
            r#"endpoints[0].addresses[0]: Invalid value: "::1": may not be in the loopback range (127.0.0.0/8, ::1/128)"#,
            "endpoints[1].addresses: Required value: must contain at least 1 address",
            r#"endpoints[2].nodeName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
            r#"endpoints[2].hints.forZones[1].name: Duplicate value: "a""#,
            r#"ports[1].name: Duplicate value: "a""#,
            r#"ports[1].protocol: Unsupported value: "x": supported values: "SCTP", "TCP", "UDP""#,
        ],
    );
    let names = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a"]}, {"addresses": ["a.b."]}]});
    let want = r#"endpoints[0].addresses[0]: Invalid value: "a": should be a domain with at least two segments separated by dots"#;
    refuses("EndpointSlice", names, &[want]);
    let good = |kind: &str| json!({"addressType": kind});
    let want = r#"addressType: Invalid value: "IPv6": field is immutable"#;
    refuses_change("EndpointSlice", good("IPv4"), good("IPv6"), &[want]);
    let old = json!({"subsets": [{"addresses": [{"ip": "x"}], "ports": [{}]}]});
    refuses(
        "Endpoints",
        old,
        &[
            r#"subsets[0].addresses[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
            r#"subsets[0].addresses[0].ip: Invalid value: "x": must be a valid IP address"#,
            "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    );
}

#[test]
fn paths_of_an_ingress_are_looked_at_under_wildcards_too() {
    let ingress = |host: &str, path: &str, secret: &str| {
        json!({"spec": {
            "tls": [{"secretName": secret}],
            "rules": [{"host": host, "http": {"paths": [{
                "path": path, "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}})
    };
    let faults = [
        r#"spec.rules[0].http.paths[0].path: Invalid value: "a": must be an absolute path"#,
        r#"spec.tls[0].secretName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
    ];
    refuses("Ingress", ingress("*.a.b", "a", "A"), &faults);
    // What is stored so may stay so.
    refuses_change("Ingress", ingress("*.a.b", "a", "A"), ingress("*.a.b", "b", "B"), &[]);
    refuses_change("Ingress", ingress("a.b", "a", "a"), ingress("a.b", "a", "A"), &faults);
    refuses(
        "Ingress",
        json!({"spec": {}}),
        &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
    );
}

#[test]
fn policies_of_networks_and_ranges_name_the_field_at_fault() {
    let policy = json!({"spec": {"podSelector": {}, "policyTypes": ["x"], "ingress": [{
        "ports": [{"port": "a", "endPort": 3}, {"endPort": 3}, {"port": 5, "endPort": 3}, {"protocol": ""}],
        "from": [{}, {"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8", "10.0.0.0/8"]}}]}]}});
    refuses(
        "NetworkPolicy",
        policy,
        &[
            "spec.ingress[0].ports[0].endPort: Invalid value: 3: may not be specified when `port` is non-numeric",
            "spec.ingress[0].ports[1].endPort: Invalid value: 3: may not be specified when `port` is not specified",
            "spec.ingress[0].ports[2].endPort: Invalid value: 5: must be greater than or equal to `port`",
            r#"spec.ingress[0].ports[3].protocol: Unsupported value: "": supported values: "TCP", "UDP", "SCTP""#,
            "spec.ingress[0].from[0]: Required value: must specify a peer",
            r#"spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: "11.0.0.0/8": must be a strict subset of `cidr`"#,
            r#"spec.ingress[0].from[1].ipBlock.except[1]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`"#,
            "spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer",
            r#"spec.policyTypes[0]: Unsupported value: "x": supported values: "Ingress", "Egress""#,
        ],
    );
    let range = |cidrs: &[&str]| json!({"metadata": {"name": "r"}, "spec": {"cidrs": cidrs}});
    let unread = r#"spec.cidrs[0]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#;
    refuses("ServiceCIDR", range(&["x", "10.0.0.0/24"]), &[unread]);
    let same_family = r#"spec.cidrs: Invalid value: ["10.0.0.0/24","10.1.0.0/24"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#;
    refuses("ServiceCIDR", range(&["10.0.0.0/24", "10.1.0.0/24"]), &[same_family]);
    refuses_change(
        "ServiceCIDR",
        range(&["10.0.0.0/24"]),
        range(&["10.0.0.0/24", "10.1.0.0/24"]),
        &[same_family],
    );
    refuses_change("ServiceCIDR", range(&["10.0.0.0/24"]), range(&["10.0.0.0/24", "2001:db8::/64"]), &[]);
    refuses_change(
        "ServiceCIDR",
        range(&["10.0.0.0/24"]),
        range(&["10.1.0.0/24"]),
        &[r#"spec.cidrs[0]: Invalid value: "10.1.0.0/24": field is immutable"#],
    );
    let class = json!({"metadata": {"name": "c"}, "spec": {"controller": "a", "parameters": {"kind": "k", "name": "n", "scope": "Cluster", "namespace": "n"}}});
    refuses(
        "IngressClass",
        class,
        &[
            r#"spec.controller: Invalid value: "a": must be a domain-prefixed path (such as "acme.io/foo")"#,
            "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'",
        ],
    );
}
