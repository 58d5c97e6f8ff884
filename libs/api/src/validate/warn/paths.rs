//! Warnings of files in a pod's volumes that stand where others stand, or within them.

use super::is_full;
use crate::status::go_quoted;
use crate::validate::node::Node;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

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
}

/// Files by their paths.
#[derive(Default)]
struct Known<'v> {
    files: Vec<File<'v>>,
    places: BTreeMap<&'v str, Vec<usize>>,
    lengths: HashSet<usize>,
}

impl<'v> Known<'v> {
    /// The files that a path is, or stands within, or that stand within it, in their order.
    fn meeting(&self, path: &str) -> impl Iterator<Item = &File<'v>> {
        let above = path.match_indices('/').map(|(end, _)| end).filter(|end| self.lengths.contains(end));
        let mut found: Vec<usize> = above
            .chain([path.len()])
            .filter_map(|end| self.places.get(&path[..end]))
            .flatten()
            .copied()
            .collect();
        let within = format!("{path}/");
        let below = self.places.range::<str, _>((Bound::Included(within.as_str()), Bound::Unbounded));
        found
            .extend(below.take_while(|(other, _)| other.starts_with(&within)).flat_map(|(_, places)| places));
        found.sort_unstable();
        found.into_iter().map(|place| &self.files[place])
    }

    fn push(&mut self, file: File<'v>) {
        self.places.entry(file.path).or_default().push(self.files.len());
        self.lengths.insert(file.path.len());
        self.files.push(file);
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
                among(&whole, files, &mut Known::default(), out);
            }
        }
        projected(&name, &volume.value["projected"]["sources"], out);
    }
}

fn projected(name: &str, sources: &Value, out: &mut Vec<String>) {
    let mut known = Known::default();
    // A source that names no files is taken for the one before it.
    let mut files = Vec::new();
    for source in sources.as_array().into_iter().flatten() {
        if is_full(out) {
            return;
        }
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
fn among<'v>(whole: &str, files: Vec<File<'v>>, known: &mut Known<'v>, out: &mut Vec<String>) {
    for mut file in files {
        file.path = file.path.trim_end_matches('/');
        if file.path.is_empty() {
            continue;
        }
        for other in known.meeting(file.path) {
            if is_full(out) {
                return;
            }
            out.push(format!("{whole}: overlapping paths: {} with {}", file.shown(), other.shown()));
        }
        known.push(file);
    }
}
