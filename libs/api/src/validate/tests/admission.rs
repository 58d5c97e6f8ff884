//! Webhooks and admission policies.

use super::*;

fn hooks(list: &[Value]) -> Value {
    let whole = |fields: &Value| {
        let mut hook = json!({
            "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "s", "namespace": "n"}}});
        for (key, value) in fields.as_object().into_iter().flatten() {
            hook[key] = value.clone();
        }
        hook
    };
    json!({"metadata": {"name": "h"}, "webhooks": list.iter().map(whole).collect::<Vec<_>>()})
}

#[test]
fn webhooks_are_judged_in_the_order_of_kubernetes() {
    let rows: &[(Value, &[&str])] = &[
        (
            json!({"name": "a.b", "admissionReviewVersions": ["v2", "v2"], "sideEffects": "Some", "failurePolicy": ""}),
            &[
                r#"webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots"#,
                r#"webhooks[0].failurePolicy: Unsupported value: "": supported values: "Fail", "Ignore""#,
                r#"webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun""#,
                r#"webhooks[0].admissionReviewVersions[1]: Invalid value: "v2": duplicate version"#,
                r#"webhooks[0].admissionReviewVersions: Invalid value: ["v2","v2"]: must include at least one of v1, v1beta1"#,
            ],
        ),
        (
            json!({"rules": [{"operations": ["*", "x"], "apiGroups": ["*", "a"], "apiVersions": [""],
                "resources": ["a/b", "a/*", "a/c", "*/d", "e/d", "*", "f"]}]}),
            &[
                r#"webhooks[0].rules[0].operations: Invalid value: ["*","x"]: if '*' is present, must not specify other operations"#,
                r#"webhooks[0].rules[0].operations[1]: Unsupported value: "x": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE""#,
                r#"webhooks[0].rules[0].apiGroups: Invalid value: ["*","a"]: if '*' is present, must not specify other API groups"#,
                "webhooks[0].rules[0].apiVersions[0]: Required value",
                r#"webhooks[0].rules[0].resources[2]: Invalid value: "a/c": if 'a/*' is present, must not specify a/c"#,
                r#"webhooks[0].rules[0].resources[4]: Invalid value: "e/d": if '*/d' is present, must not specify e/d"#,
                r#"webhooks[0].rules[0].resources: Invalid value: ["a/b","a/*","a/c","*/d","e/d","*","f"]: if '*' is present, must not specify other resources without subresources"#,
            ],
        ),
        (
            json!({"clientConfig": {"url": "http://u:p@/x?q#f"}}),
            &[
                r#"webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]"#,
                r#"webhooks[0].clientConfig.url: Invalid value: "": host must be specified; desired format: https://host[/path]"#,
                r#"webhooks[0].clientConfig.url: Invalid value: "u:p": user information is not permitted in the URL"#,
                r#"webhooks[0].clientConfig.url: Invalid value: "f": fragments are not permitted in the URL"#,
                r#"webhooks[0].clientConfig.url: Invalid value: "q": query parameters are not permitted in the URL"#,
            ],
        ),
        (
            json!({"clientConfig": {"service": {"name": "", "namespace": "n", "path": "/a//B/"}}}),
            &[
                "webhooks[0].clientConfig.service.namespace: Required value: service namespace is required",
                r#"webhooks[0].clientConfig.service.path: Invalid value: "/a//B/": segment[1] may not be empty"#,
                r#"webhooks[0].clientConfig.service.path: Invalid value: "/a//B/": segment[2]: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
            ],
        ),
        (
            json!({"matchConditions": [{"name": "a", "expression": " "}, {"name": "a", "expression": "true"}]}),
            &[
                "webhooks[0].matchConditions[0].expression: Required value",
                r#"webhooks[0].matchConditions[1].name: Duplicate value: "a""#,
            ],
        ),
    ];
    for (hook, want) in rows {
        refuses("ValidatingWebhookConfiguration", hooks(std::slice::from_ref(hook)), want);
    }
    refuses(
        "ValidatingWebhookConfiguration",
        hooks(&[json!({"clientConfig": {"url": "https://h:1/p"}})]),
        &[],
    );
}

#[test]
fn what_stored_webhooks_have_wrong_may_stay() {
    let odd = |extra: &str| json!({"sideEffects": "Some", "admissionReviewVersions": ["v9"], "matchConditions": [{"name": extra, "expression": "!"}]});
    let stored = || hooks(&[odd("a"), odd("a")]);
    refuses_change("MutatingWebhookConfiguration", stored(), stored(), &[]);
    let fine = || hooks(&[json!({}), json!({"name": "a.b.d"})]);
    refuses_change(
        "MutatingWebhookConfiguration",
        fine(),
        hooks(&[json!({}), json!({})]),
        &[r#"webhooks[1].name: Duplicate value: "a.b.c""#],
    );
    refuses_change(
        "MutatingWebhookConfiguration",
        stored(),
        hooks(&[json!({"sideEffects": "x"})]),
        &[
            r#"webhooks[0].sideEffects: Unsupported value: "x": supported values: "None", "NoneOnDryRun", "Some", "Unknown""#,
        ],
    );
}

fn policy(fields: &Value) -> Value {
    let mut object = json!({"metadata": {"name": "p"}, "spec": {
        "failurePolicy": "Fail", "validations": [{"expression": "true"}],
        "matchConstraints": {"matchPolicy": "Exact", "namespaceSelector": {}, "objectSelector": {}, "resourceRules": [
            {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}}});
    for (key, value) in fields.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}

#[test]
fn policies_are_judged_in_the_order_of_kubernetes() {
    let long = "1".repeat(5121);
    let rows: &[(Value, &[&str])] = &[
        (
            json!({"failurePolicy": "", "paramKind": {"apiVersion": "a/", "kind": "K_"}, "validations": []}),
            &[
                r#"spec.failurePolicy: Unsupported value: "": supported values: "Fail", "Ignore""#,
                r#"spec.paramKind.apiVersion: Invalid value: "a/": version must be specified"#,
                r#"spec.paramKind.kind: Invalid value: "K_": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"#,
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
            ],
        ),
        (
            json!({"paramKind": {"apiVersion": "a/b/c", "kind": ""}, "variables": [{"name": "if", "expression": ""}]}),
            &[
                r#"spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#,
                "spec.paramKind.kind: Required value",
                r#"spec.variables[0].name: Invalid value: "if": name is not a valid CEL identifier"#,
                "spec.variables[0].expression: Required value: expression is not specified",
            ],
        ),
        (
            json!({"validations": [
                {"expression": "", "message": "a\nb", "reason": "Unauthorized"},
                {"expression": "true &&\ntrue"},
                {"expression": "true", "message": " ", "messageExpression": " "}]}),
            &[
                "spec.validations[0].expression: Required value: expression is not specified",
                r#"spec.validations[0].message: Invalid value: "a\nb": message must not contain line breaks"#,
                r#"spec.validations[0].reason: Unsupported value: "Unauthorized": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge""#,
                r#"spec.validations[2].messageExpression: Invalid value: " ": must be non-empty if specified"#,
                r#"spec.validations[2].message: Invalid value: " ": message must be non-empty if specified"#,
            ],
        ),
        (
            json!({"auditAnnotations": [{"key": "a/b", "valueExpression": long}, {"key": "c", "valueExpression": " "}, {"key": "c", "valueExpression": "'x'"}]}),
            &[
                r#"spec.auditAnnotations[0].key: Invalid value: "p/a/b": a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"#,
                "spec.auditAnnotations[0].valueExpression: Required value: must not exceed 5120 bytes in length",
                "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified",
                r#"spec.auditAnnotations[2].key: Duplicate value: "c""#,
            ],
        ),
    ];
    for (fields, want) in rows {
        refuses("ValidatingAdmissionPolicy", policy(fields), want);
    }
    let mut status = policy(&json!({}));
    status["status"] = json!({"typeChecking": {"expressionWarnings": [{"fieldRef": " ", "warning": ""}]}});
    let want = [
        "status.typeChecking.expressionWarnings[0].warning: Required value",
        "status.typeChecking.expressionWarnings[0].fieldRef: Required value",
    ];
    refuses_write("ValidatingAdmissionPolicy", "status", policy(&json!({})), status, &want);
}

#[test]
fn bindings_name_the_field_at_fault() {
    let binding = json!({"metadata": {"name": "b"}, "spec": {
        "policyName": "p", "paramRef": {"name": "a/b", "selector": {}, "parameterNotFoundAction": "x"},
        "matchResources": {"matchPolicy": "Exact", "namespaceSelector": {}, "objectSelector": {}, "resourceRules": [
            {"resourceNames": ["n", "n"], "operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]},
        "validationActions": ["Deny", "Warn", "Warn"]}});
    refuses(
        "ValidatingAdmissionPolicyBinding",
        binding,
        &[
            r#"spec.paramRef.name: Invalid value: "a/b": may not contain '/'"#,
            "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
            r#"spec.paramRef.parameterNotFoundAction: Unsupported value: "x": supported values: "Deny", "Allow""#,
            r#"spec.matchResources.resourceRules[0].resourceNames[1]: Duplicate value: "n""#,
            r#"spec.validationActions[2]: Duplicate value: "Warn""#,
            r#"spec.validationActions: Invalid value: ["Deny","Warn","Warn"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"#,
        ],
    );
}
