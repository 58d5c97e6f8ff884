//! Kubeconfig files: one for each identity, and the context `coracle-NAME` in the user's own.

use crate::args::KubeconfigArgs;
use crate::layout::{Layout, home};
use crate::pki::{private_dir, write_private};
use crate::spec::Spec;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Writes the kubeconfig of every identity, and the admin's.
///
/// # Errors
/// A certificate cannot be read or a file not written.
pub fn write_all(layout: &Layout, spec: &Spec) -> Result<()> {
    let local = format!("https://127.0.0.1:{}", spec.balancer_port());
    let from_nodes = format!("https://{}:{}", spec.advertise_address(), spec.balancer_port());
    let mut wanted = vec![
        ("admin".to_owned(), &local),
        ("scheduler".to_owned(), &local),
        ("controllers".to_owned(), &local),
    ];
    if spec.simulated_nodes > 0 {
        wanted.push(("simulator".to_owned(), &local));
    }
    if spec.nodes > 0 {
        wanted.push(("proxy".to_owned(), &from_nodes));
        wanted.push(("dns".to_owned(), &from_nodes));
        wanted.extend((0..spec.nodes).map(|i| (spec.node_name(i), &from_nodes)));
    }
    for (identity, server) in wanted {
        let path = layout.kubeconfig(&identity);
        if let Some(parent) = path.parent() {
            private_dir(parent)?;
        }
        write_private(&path, to_yaml(&config(layout, spec, &identity, server)?)?.as_bytes())?;
    }
    Ok(())
}

/// `coracle kubeconfig`: the admin's, to standard output.
///
/// # Errors
/// There is no such cluster.
pub fn print(args: &KubeconfigArgs) -> Result<()> {
    let path = Layout::of(&args.which).kubeconfig("admin");
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}: make the cluster with `coracle up --name {}`",
            path.display(),
            args.which.name
        )
    })?;
    print!("{text}");
    Ok(())
}

fn config(layout: &Layout, spec: &Spec, identity: &str, server: &str) -> Result<Value> {
    let data = |path: PathBuf| -> Result<String> {
        Ok(STANDARD.encode(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?))
    };
    let name = spec.context();
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": data(layout.cert("ca"))?}}],
        "users": [{"name": name, "user": {"client-certificate-data": data(layout.cert(identity))?, "client-key-data": data(layout.key(identity))?}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }))
}

/// The user's kubeconfig: the flag, the first of `$KUBECONFIG`, or `~/.kube/config`.
#[must_use]
pub fn users_file(flag: Option<&Path>) -> PathBuf {
    flag.map(Path::to_owned).unwrap_or_else(|| match std::env::var("KUBECONFIG") {
        Ok(list) if !list.is_empty() => PathBuf::from(list.split(':').next().unwrap_or_default()),
        _ => home().join(".kube/config"),
    })
}

/// Merges the admin's context into the user's file and makes it current.
///
/// # Errors
/// The file is there and is no kubeconfig, or cannot be written.
pub fn merge_into(path: &Path, layout: &Layout, spec: &Spec) -> Result<()> {
    let ours = config(layout, spec, "admin", &format!("https://127.0.0.1:{}", spec.balancer_port()))?;
    let merged = merged(read(path)?, &ours);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    write_private(path, to_yaml(&merged)?.as_bytes())
}

/// Takes the context out again. A file without it is left alone.
///
/// # Errors
/// The file cannot be read or written.
pub fn remove_from(path: &Path, context: &str) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let before = read(path)?;
    match without(before.clone(), context) {
        after if after == before => Ok(()),
        after if is_empty(&after) => {
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
        }
        after => write_private(path, to_yaml(&after)?.as_bytes()),
    }
}

fn read(path: &Path) -> Result<Value> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(error).with_context(|| {
                format!("cannot read {}: choose another file with --kubeconfig", path.display())
            });
        }
    };
    if text.trim().is_empty() {
        return Ok(
            json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []}),
        );
    }
    serde_yaml_ng::from_str(&text).with_context(|| {
        format!("{} is not a kubeconfig: mend it, or choose another file with --kubeconfig", path.display())
    })
}

const LISTS: [&str; 3] = ["clusters", "users", "contexts"];

fn merged(base: Value, ours: &Value) -> Value {
    let context = ours["current-context"].as_str().unwrap_or_default();
    let mut out = without(base, context);
    for list in LISTS {
        let added = ours[list].as_array().cloned().unwrap_or_default();
        match out[list].as_array_mut() {
            Some(entries) => entries.extend(added),
            None => out[list] = Value::Array(added),
        }
    }
    out["current-context"] = json!(context);
    out
}

fn without(mut config: Value, context: &str) -> Value {
    for list in LISTS {
        if let Some(entries) = config[list].as_array_mut() {
            entries.retain(|entry| entry["name"] != context);
        }
    }
    if config["current-context"] == context {
        config["current-context"] = json!("");
    }
    config
}

fn is_empty(config: &Value) -> bool {
    LISTS.iter().all(|list| config[*list].as_array().is_none_or(Vec::is_empty))
}

fn to_yaml(config: &Value) -> Result<String> {
    serde_yaml_ng::to_string(config).context("cannot write a kubeconfig as YAML")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_other_contexts_and_removing_restores_the_file() {
        let entry = |name: &str| json!([{"name": name}]);
        let theirs = json!({"clusters": entry("a"), "users": entry("a"), "contexts": entry("a"), "current-context": "a"});
        let ours = json!({"clusters": entry("coracle-x"), "users": entry("coracle-x"), "contexts": entry("coracle-x"), "current-context": "coracle-x"});
        let both = merged(merged(theirs, &ours), &ours);
        assert_eq!(both["contexts"].as_array().map(Vec::len), Some(2), "merging twice adds once");
        assert_eq!(both["current-context"], "coracle-x");
        let after = without(both, "coracle-x");
        assert_eq!(after["contexts"], entry("a"));
        assert!(!is_empty(&after));
    }
}
