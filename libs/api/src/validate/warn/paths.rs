//! Warnings of files in a pod's volumes that stand where others stand, or within them.

use crate::status::go_quoted;
use crate::validate::node::Node;
use serde_json::Value;

/// A file, and what of a projected volume it comes from.
#[derive(Clone, PartialEq)]
struct File<'v> {
    path: &'v str,
    source: String,
}

impl File<'_> {
    fn shown(&self) -> String {
        let path = go_quoted(self.path);
        if self.source.is_empty() { path } else { format!("{path} ({})", self.source) }
    }

    /// Whether one is the other, or stands within it.
    fn meets(&self, other: &Self) -> bool {
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let both = !self.path.is_empty() && !other.path.is_empty();
        both && (within(self.path, other.path) || within(other.path, self.path))
    }
}

/// Files that the `items` of a source name; none where it has no such list.
fn listed<'v>(source: &'v Value, from: &str) -> Option<Vec<File<'v>>> {
    let items = source["items"].as_array()?;
    let path = |item: &'v Value| item["path"].as_str().unwrap_or_default();
    Some(items.iter().map(|item| File { path: path(item), source: from.to_owned() }).collect())
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

pub fn overlaps(volumes: &Node<'_, '_>, out: &mut Vec<String>) {
    for volume in volumes.items() {
        let name = go_quoted(text(volume.value, "name"));
        for (key, shown, named) in [
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName"),
            ("downwardAPI", "DownwardAPI", ""),
        ] {
            let source = &volume.value[key];
            if let Some(files) = listed(source, "") {
                let of = if named.is_empty() { String::new() } else { go_quoted(text(source, named)) };
                let whole = format!("volume {name} ({})", format!("{shown} {of}").trim_end());
                among(&whole, files, &mut Vec::new(), out);
            }
        }
        projected(&name, &volume.value["projected"]["sources"], out);
    }
}

fn projected(name: &str, sources: &Value, out: &mut Vec<String>) {
    let mut known = Vec::new();
    // A source that names no files is taken for the one before it.
    let mut files = Vec::new();
    for source in sources.as_array().into_iter().flatten() {
        if source.as_object().is_none_or(|source| source.values().all(Value::is_null)) {
            out.push(format!("volume {name} (Projected) has no sources provided"));
            continue;
        }
        if let Some(own) = files_of(source) {
            files = own;
        }
        among(&format!("volume {name} (Projected)"), files.clone(), &mut known, out);
    }
}

/// The files of a source of a projected volume; none where it does not name them.
fn files_of(source: &Value) -> Option<Vec<File<'_>>> {
    let one = |file: &'static str, from: String| {
        Some(vec![File { path: text(&source[file], "path"), source: from }])
    };
    let of = |key: &str, shown: &str| format!("{shown} {}", go_quoted(text(&source[key], "name")));
    let bundle = &source["clusterTrustBundle"];
    listed(&source["configMap"], &of("configMap", "ConfigMap"))
        .or_else(|| listed(&source["secret"], &of("secret", "Secret")))
        .or_else(|| listed(&source["downwardAPI"], "DownwardAPI"))
        .or_else(|| match () {
            () if source["serviceAccountToken"].is_object() => {
                one("serviceAccountToken", "ServiceAccountToken".to_owned())
            }
            () if bundle.is_object() => {
                let name = bundle["name"].as_str().unwrap_or_else(|| text(bundle, "signerName"));
                one("clusterTrustBundle", format!("ClusterTrustBundle {}", go_quoted(name)))
            }
            () => None,
        })
}

/// Tells of each of `files` that meets one before it.
fn among<'v>(whole: &str, files: Vec<File<'v>>, known: &mut Vec<File<'v>>, out: &mut Vec<String>) {
    for mut file in files {
        file.path = file.path.trim_end_matches('/');
        for other in known.iter().filter(|other| other.meets(&file)) {
            out.push(format!("{whole}: overlapping paths: {} with {}", file.shown(), other.shown()));
        }
        known.push(file);
    }
}
