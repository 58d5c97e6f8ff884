//! A scenario of pulling, from a registry of the test's own on the loopback device.

use super::world::{World, run};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use coracle_daemon::clock::Instant;
use kubelet::runtime::{RegistryAuth, Runtime, RuntimeError};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Documents and layers by digest, and the digest that the tag `1` stands for.
#[derive(Default)]
struct Content {
    blobs: HashMap<String, (&'static str, Vec<u8>)>,
    tag: String,
    port: u16,
}

impl Content {
    fn add(&mut self, kind: &'static str, bytes: Vec<u8>) -> Value {
        let digest = digest(&bytes);
        let descriptor = json!({"mediaType": kind, "digest": digest, "size": bytes.len()});
        self.blobs.insert(digest, (kind, bytes));
        descriptor
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The busybox image with one more file, as an index of two machines' images.
fn content(dir: &FilePath) -> Content {
    let layout = dir.join("layout");
    std::fs::create_dir_all(&layout).unwrap();
    let path = |path: &FilePath| path.to_string_lossy().into_owned();
    run("tar", &["-xf", &path(&dir.join("busybox.tar")), "-C", &path(&layout)]);
    let blob = |digest: &Value| {
        let file = layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
        std::fs::read(file).unwrap()
    };
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let index = json(&std::fs::read(layout.join("index.json")).unwrap());
    let manifest = json(&blob(&index["manifests"][0]["digest"]));
    let mut config = json(&blob(&manifest["config"]["digest"]));
    let (tar, marker) = (layout.join("layer.tar"), layout.join("marker"));
    let mut layer = Vec::new();
    let packed = blob(&manifest["layers"][0]["digest"]);
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut layer).unwrap();
    std::fs::write(&tar, layer).unwrap();
    std::fs::write(marker, "pulled\n").unwrap();
    run("tar", &["-rf", &path(&tar), "-C", &path(&layout), "marker"]);
    let layer = std::fs::read(&tar).unwrap();
    config["rootfs"]["diff_ids"] = json!([digest(&layer)]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&layer).unwrap();
    let mut content = Content::default();
    let layer = content.add("application/vnd.oci.image.layer.v1.tar+gzip", packed.finish().unwrap());
    let config = content.add("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    let mut ours = content.add(MANIFEST, manifest.to_string().into_bytes());
    let machine = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    ours["platform"] = json!({"os": "linux", "architecture": machine});
    let mut others = ours.clone();
    others["platform"]["architecture"] = json!("s390x");
    others["digest"] = json!(digest(b"nowhere"));
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [others, ours]});
    let top = content.add(INDEX, index.to_string().into_bytes());
    content.tag = top["digest"].as_str().unwrap().to_owned();
    content
}

async fn manifest(
    State(content): State<Arc<Content>>,
    Path(version): Path<String>,
    headers: HeaderMap,
) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != "Bearer let-me-in") {
        let challenge = format!(
            "Bearer realm=\"http://localhost:{}/token\",service=\"test\",scope=\"repository:team/tool:pull\"",
            content.port
        );
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    let digest = if version == "1" { &content.tag } else { &version };
    match content.blobs.get(digest) {
        Some((kind, bytes)) => ([(header::CONTENT_TYPE, *kind)], bytes.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Blobs are elsewhere, as with most public registries.
async fn blob(State(content): State<Arc<Content>>, Path(digest): Path<String>) -> Response {
    let elsewhere = format!("http://127.0.0.1:{}/elsewhere/{digest}", content.port);
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, elsewhere)]).into_response()
}

async fn elsewhere(
    State(content): State<Arc<Content>>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Response {
    assert!(!headers.contains_key(header::AUTHORIZATION), "a proof was shown to somebody else");
    content.blobs[&digest].1.clone().into_response()
}

async fn token(headers: HeaderMap) -> Response {
    // user:secret
    if headers.get(header::AUTHORIZATION).is_some_and(|value| value == "Basic dXNlcjpzZWNyZXQ=") {
        return r#"{"token": "let-me-in"}"#.into_response();
    }
    StatusCode::UNAUTHORIZED.into_response()
}

/// Serves, and returns the port.
async fn serve(mut content: Content) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    content.port = port;
    let router = Router::new()
        .route("/v2/team/tool/manifests/{version}", get(manifest))
        .route("/v2/team/tool/blobs/{digest}", get(blob))
        .route("/elsewhere/{digest}", get(elsewhere))
        .route("/token", get(token))
        .with_state(Arc::new(content));
    let tasks = coracle_daemon::Tasks::new();
    tasks.run("registry", async move { axum::serve(listener, router).await.unwrap() });
    port
}

pub async fn images_are_pulled_from_a_registry(world: &mut World) {
    let port = serve(content(&world.dir)).await;
    let name = format!("localhost:{port}/team/tool:1");
    let auth = RegistryAuth { username: "user".to_owned(), password: "secret".to_owned() };
    let why = async |name: &str, auth: Option<&RegistryAuth>| match world.runtime.pull(name, auth).await {
        Err(RuntimeError::Pull { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    let begun = Instant::now();
    let refused = why("localhost:1/x", None).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(
        refused.starts_with(
            "failed to pull and unpack image \"localhost:1/x:latest\": failed to resolve reference \"localhost:1/x:latest\": failed to do request: "
        ) && refused.contains("Connection refused"),
        "{refused}"
    );
    let denied = why(&name, None).await;
    assert!(denied.contains("failed to authorize") && denied.contains("401 Unauthorized"), "{denied}");
    let missing = format!("localhost:{port}/team/tool:2");
    let missing = why(&missing, Some(&auth)).await;
    assert!(missing.ends_with(&format!("localhost:{port}/team/tool:2: not found")), "{missing}");

    let image = world.runtime.pull(&name, Some(&auth)).await.unwrap();
    assert_eq!(world.runtime.pull(&name, Some(&auth)).await.unwrap(), image);
    assert!(image.names.contains(&name) && image.names.len() == 2 && !image.provided, "{image:?}");
    let by_digest = image.names.iter().find(|name| name.contains('@')).unwrap();
    assert_eq!(world.runtime.image(by_digest).await.unwrap().unwrap(), image);

    // Whatever the garbage collector may take, it takes now.
    run("ctr", &["-n", "k8s.io", "leases", "create", "--id", "collect"]);
    run("ctr", &["-n", "k8s.io", "leases", "delete", "--sync", "collect"]);
    world.runtime.start_sandbox(&world.sandbox("pulled", 2)).await.unwrap();
    let mut container = world.script("pulled", "main", "cat /marker");
    container.image = name;
    assert_eq!(world.output(&container).await, ["stdout F pulled"]);
    world.runtime.remove_sandbox("pulled").await.unwrap();
}

pub async fn damaged_content_is_refused(world: &mut World) {
    let mut content = content(&world.dir);
    // Another layer, so that it is not there yet, and then not what its digest says.
    let tag = content.tag.clone();
    let (_, index) = &content.blobs[&tag];
    let index: Value = serde_json::from_slice(index).unwrap();
    let ours = index["manifests"][1]["digest"].as_str().unwrap().to_owned();
    let mut manifest: Value = serde_json::from_slice(&content.blobs[&ours].1).unwrap();
    let layer = content.blobs[manifest["layers"][0]["digest"].as_str().unwrap()].1.clone();
    manifest["layers"][0]["digest"] = json!(digest(b"something else"));
    content.blobs.insert(digest(b"something else"), ("", layer));
    let changed = content.add(MANIFEST, manifest.to_string().into_bytes());
    content.tag = changed["digest"].as_str().unwrap().to_owned();
    let port = serve(content).await;
    let auth = RegistryAuth { username: "user".to_owned(), password: "secret".to_owned() };
    let name = format!("localhost:{port}/team/tool:1");
    match world.runtime.pull(&name, Some(&auth)).await {
        Err(RuntimeError::Pull { why, .. }) => assert!(why.contains("unexpected commit digest"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.runtime.image(&name).await.unwrap(), None);
}
