//! A file tree in, an OCI archive out (OCI image and layout specifications 1.0). The same tree gives the same bytes.

use super::debian::{Entry, Tree};
use super::recipe::Recipe;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::Path;

struct Blob {
    digest: String,
    content: Vec<u8>,
}

impl Blob {
    fn new(content: Vec<u8>) -> Self {
        Self { digest: hex::encode(Sha256::digest(&content)), content }
    }
    fn of(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }
    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.content.len()})
    }
}

/// Writes the image of `recipe` to `out`.
///
/// # Errors
/// The file cannot be written.
pub fn write(recipe: &Recipe, tree: &Tree, out: &Path) -> Result<()> {
    let layer = layer(tree)?;
    let diff_id = hex::encode(Sha256::digest(&layer));
    let mut gzip = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::default());
    gzip.write_all(&layer).context("cannot compress the layer")?;
    let layer = Blob::new(gzip.finish().context("cannot compress the layer")?);
    let ports: Value = recipe
        .ports
        .iter()
        .map(|port| (format!("{port}/tcp"), json!({})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let config = Blob::of(&json!({
        "architecture": architecture(), "os": "linux", "created": "1970-01-01T00:00:00Z",
        "config": {"Cmd": recipe.cmd, "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "ExposedPorts": ports, "WorkingDir": if recipe.name == "redis" { "/data" } else { "/" }},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
    }));
    let manifest = Blob::of(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
    }));
    let mut entry = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
    let version = recipe.tag.rsplit_once(':').map_or("latest", |(_, version)| version);
    entry["annotations"] =
        json!({"io.containerd.image.name": recipe.reference(), "org.opencontainers.image.ref.name": version});
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]});
    let mut archive =
        tar::Builder::new(fs::File::create(out).with_context(|| format!("cannot write {}", out.display()))?);
    add(&mut archive, "oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string().as_bytes())?;
    add(&mut archive, "index.json", index.to_string().as_bytes())?;
    for blob in [config, manifest, layer] {
        add(&mut archive, &format!("blobs/sha256/{}", blob.digest), &blob.content)?;
    }
    archive
        .into_inner()
        .and_then(|mut file| file.flush())
        .with_context(|| format!("cannot write {}", out.display()))
}

/// The name of this machine's processor in image configurations (GOARCH).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn header(mode: u32, size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_entry_type(kind);
    // No time and no owner but root: nothing of the building machine gets in.
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn add<W: Write>(archive: &mut tar::Builder<W>, path: &str, content: &[u8]) -> Result<()> {
    let mut header = header(0o644, content.len() as u64, tar::EntryType::Regular);
    archive.append_data(&mut header, path, content).with_context(|| format!("cannot add {path}"))
}

fn layer(tree: &Tree) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, entry) in tree {
        let added = match entry {
            Entry::Folder(mode) => archive.append_data(
                &mut header(*mode, 0, tar::EntryType::Directory),
                format!("{path}/"),
                std::io::empty(),
            ),
            Entry::File(mode, content) => archive.append_data(
                &mut header(*mode, content.len() as u64, tar::EntryType::Regular),
                path,
                content.as_slice(),
            ),
            Entry::Link(target) => {
                archive.append_link(&mut header(0o777, 0, tar::EntryType::Symlink), path, target)
            }
        };
        added.with_context(|| format!("cannot add {path} to the layer"))?;
    }
    archive.into_inner().context("cannot finish the layer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let dir = tempfile::tempdir().expect("temp dir");
        let tree = Tree::from([
            ("a".to_owned(), Entry::Folder(0o755)),
            ("a/b".to_owned(), Entry::File(0o644, b"x".to_vec())),
        ]);
        let recipe = Recipe::plain(&["x".to_owned()]);
        let made = |name: &str| {
            write(&recipe, &tree, &dir.path().join(name)).expect("written");
            fs::read(dir.path().join(name)).expect("read")
        };
        assert_eq!(made("1"), made("2"));
    }
}
