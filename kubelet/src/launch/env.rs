//! A container's environment: Services, then `envFrom`, then `env`, each able to use what came before.

use super::expand::{expand, value_of};
use super::{ConfigError, Found, Lookup, Surroundings, fields, text};
use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, PodSpec};
use std::collections::BTreeMap;

/// What the environment of one container is made of.
pub struct Source<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its spec.
    pub spec: &'a PodSpec,
    /// The pod's address.
    pub ip: &'a str,
    /// Host name inside.
    pub hostname: &'a str,
    /// Variables of Services.
    pub services: Vec<(String, String)>,
    /// ConfigMaps and Secrets.
    pub objects: &'a dyn Lookup,
    /// The node.
    pub around: &'a Surroundings,
}

/// The environment, in order; a later one of the same name wins.
///
/// # Errors
/// Something that it refers to is not there.
pub fn of_container(
    source: &Source<'_>,
    container: &Container,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env = vec![("HOSTNAME".to_owned(), source.hostname.to_owned())];
    env.extend(source.services.iter().cloned());
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut add = |all: BTreeMap<String, String>| {
            env.extend(all.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
        };
        if let Some(map) = &from.config_map_ref
            && let Some(map) =
                present("configmap", &map.name, map.optional, source.objects.config_map(&map.name))?
        {
            add(map.data.clone().unwrap_or_default());
        }
        if let Some(secret) = &from.secret_ref
            && let Some(secret) =
                present("secret", &secret.name, secret.optional, source.objects.secret(&secret.name))?
        {
            let texts = secret.data.iter().flatten();
            add(texts
                .map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
                .collect());
        }
    }
    for var in container.env.iter().flatten() {
        let value = match &var.value_from {
            Some(from) => from_source(source, container, from)?,
            None => {
                let value = var.value.as_deref().unwrap_or_default();
                Some(expand(value, |name| value_of(&env, name)))
            }
        };
        if let Some(value) = value {
            env.push((var.name.clone(), value));
        }
    }
    Ok(last_of_each(env))
}

/// Of several of one name only the last one counts; it stays where it is.
fn last_of_each(env: Vec<(String, String)>) -> Vec<(String, String)> {
    let last: BTreeMap<String, usize> =
        env.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
    let kept = env.into_iter().enumerate().filter(|(at, (name, _))| last.get(name) == Some(at));
    kept.map(|(_, pair)| pair).collect()
}

/// The object; `None` when it may be missing and is.
pub fn present<K>(
    kind: &'static str,
    name: &str,
    optional: Option<bool>,
    found: Found<K>,
) -> Result<Option<std::sync::Arc<K>>, ConfigError> {
    match found {
        Found::Here(object) => Ok(Some(object)),
        Found::NotYet => Err(ConfigError::NotYet { kind, name: name.to_owned() }),
        Found::Missing if optional == Some(true) => Ok(None),
        Found::Missing => Err(ConfigError::NotFound { kind, name: name.to_owned() }),
    }
}

fn from_source(
    source: &Source<'_>,
    container: &Container,
    from: &EnvVarSource,
) -> Result<Option<String>, ConfigError> {
    let no_key = |kind, name: &str, key: &str| ConfigError::NoKey {
        kind,
        namespace: text(source.pod.metadata.namespace.as_ref()).to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
    };
    if let Some(field) = &from.field_ref {
        return fields::of_pod(source.pod, &field.field_path, source.ip, source.around).map(Some);
    }
    if let Some(selector) = &from.resource_field_ref {
        return fields::of_container(source.spec, Some(container), selector, source.around).map(Some);
    }
    if let Some(of) = &from.config_map_key_ref {
        let map = present("configmap", &of.name, of.optional, source.objects.config_map(&of.name))?;
        let Some(map) = map else { return Ok(None) };
        let value = map.data.as_ref().and_then(|data| data.get(&of.key)).cloned();
        return match value {
            None if of.optional != Some(true) => Err(no_key("ConfigMap", &of.name, &of.key)),
            value => Ok(value),
        };
    }
    if let Some(of) = &from.secret_key_ref {
        let secret = present("secret", &of.name, of.optional, source.objects.secret(&of.name))?;
        let Some(secret) = secret else { return Ok(None) };
        let value = secret.data.as_ref().and_then(|data| data.get(&of.key));
        return match value.map(|value| String::from_utf8_lossy(&value.0).into_owned()) {
            None if of.optional != Some(true) => Err(no_key("Secret", &of.name, &of.key)),
            value => Ok(value),
        };
    }
    Ok(None)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use serde_json::{Value, json};
    use std::sync::Arc;

    /// ConfigMap `c` and Secret `s`, and nothing else.
    pub struct Fixed;
    impl Lookup for Fixed {
        fn config_map(&self, name: &str) -> Found<ConfigMap> {
            let map = json!({ "metadata": { "name": "c" }, "data": { "k": "v", "l": "w" } });
            if name == "c" {
                Found::Here(Arc::new(serde_json::from_value(map).unwrap()))
            } else {
                Found::Missing
            }
        }
        fn secret(&self, name: &str) -> Found<Secret> {
            let secret = json!({ "metadata": { "name": "s" }, "data": { "p": "c2VjcmV0" } });
            if name == "s" {
                Found::Here(Arc::new(serde_json::from_value(secret).unwrap()))
            } else {
                Found::Missing
            }
        }
    }

    fn env(container: Value) -> Result<Vec<(String, String)>, ConfigError> {
        let mut container = container;
        container["name"] = json!("a");
        let pod: Pod = serde_json::from_value(
            json!({ "metadata": { "name": "p", "namespace": "ns" }, "spec": { "containers": [container] } }),
        )
        .unwrap();
        let spec = pod.spec.as_ref().unwrap();
        let source = Source {
            pod: &pod,
            spec,
            ip: "10.1.1.1",
            hostname: "p",
            services: vec![("KUBERNETES_SERVICE_HOST".into(), "10.96.0.1".into())],
            objects: &Fixed,
            around: &fields::tests::around(),
        };
        of_container(&source, &spec.containers[0])
    }

    #[test]
    fn variables_come_from_everywhere_and_build_on_each_other() {
        let got = env(json!({
            "envFrom": [{ "prefix": "C_", "configMapRef": { "name": "c" } }, { "secretRef": { "name": "s" } },
                        { "configMapRef": { "name": "none", "optional": true } }],
            "env": [
                { "name": "A", "value": "1" }, { "name": "A", "value": "2" },
                { "name": "B", "value": "$(A)-$(C_k)-$(KUBERNETES_SERVICE_HOST)-$(NONE)" },
                { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                { "name": "K", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "l" } } },
                { "name": "P", "valueFrom": { "secretKeyRef": { "name": "s", "key": "p" } } },
                { "name": "O", "valueFrom": { "secretKeyRef": { "name": "s", "key": "q", "optional": true } } },
            ],
        }))
        .unwrap();
        let words: Vec<String> = got.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = "HOSTNAME=p KUBERNETES_SERVICE_HOST=10.96.0.1 C_k=v C_l=w p=secret A=2 \
                        B=2-v-10.96.0.1-$(NONE) IP=10.1.1.1 K=w P=secret";
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn what_is_missing_is_told_in_upstreams_words() {
        for (from, expected) in [
            (json!({ "configMapKeyRef": { "name": "x", "key": "k" } }), "configmap \"x\" not found"),
            (
                json!({ "configMapKeyRef": { "name": "c", "key": "x" } }),
                "couldn't find key x in ConfigMap ns/c",
            ),
            (json!({ "secretKeyRef": { "name": "x", "key": "k" } }), "secret \"x\" not found"),
            (json!({ "secretKeyRef": { "name": "s", "key": "x" } }), "couldn't find key x in Secret ns/s"),
        ] {
            let got = env(json!({ "env": [{ "name": "A", "valueFrom": from }] }));
            assert_eq!(got.unwrap_err().to_string(), expected);
        }
    }
}
