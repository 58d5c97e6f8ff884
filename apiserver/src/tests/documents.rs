//! OpenAPI documents as clients ask for them: by the index, by hash, and again.

use super::Fixture;
use axum::body::Body;
use coracle_etcd::memory::MemoryKv;
use http::header::{CACHE_CONTROL, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION};
use http::{Request, Response};
use serde_json::Value;

async fn get(fixture: &Fixture, path: &str, known: &str) -> Response<Body> {
    let request = Request::get(path).header(IF_NONE_MATCH, known).body(Body::empty()).expect("a request");
    fixture.server.answer(Some(fixture.admin.clone()), request).await
}

fn header(response: &Response<Body>, name: http::HeaderName) -> &str {
    response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

#[tokio::test]
async fn a_document_is_kept_by_its_hash_and_found_again_when_it_has_another() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    let (_, index) = fixture.call("GET", "/openapi/v3", Value::Null).await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL");
    let (path, hash) = url.split_once("?hash=").expect("a hash");
    let kept = get(&fixture, url, "").await;
    assert_eq!((kept.status().as_u16(), header(&kept, CACHE_CONTROL)), (200, "public, immutable"));
    assert_eq!(header(&kept, ETAG), format!("\"{hash}\""));
    assert!(header(&kept, EXPIRES).ends_with(" UTC"), "{}", header(&kept, EXPIRES));
    let plain = get(&fixture, path, "").await;
    assert_eq!((plain.status().as_u16(), header(&plain, CACHE_CONTROL)), (200, "no-cache, private"));
    let known = get(&fixture, path, header(&kept, ETAG)).await;
    assert_eq!(known.status().as_u16(), 304);
    let other = get(&fixture, &format!("{path}?hash=0"), "").await;
    assert_eq!((other.status().as_u16(), header(&other, LOCATION)), (301, url));
    fixture.stop().await;
}
