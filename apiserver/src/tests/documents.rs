//! OpenAPI documents as clients ask for them: by the index, by hash, and again.

use super::Fixture;
use axum::body::Body;
use coracle_etcd::memory::MemoryKv;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY,
};
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

#[tokio::test]
async fn the_one_document_is_packed_for_whoever_takes_it_so() {
    let fixture = Fixture::over(&MemoryKv::default()).await;
    for (path, accepted, packed, vary) in [
        ("/openapi/v2", "gzip", "gzip", vec!["Accept-Encoding", "Accept"]),
        ("/openapi/v2", "br, gzip;q=0.5", "gzip", vec!["Accept-Encoding", "Accept"]),
        ("/openapi/v2", "gzip;q=0", "", vec!["Accept-Encoding", "Accept"]),
        ("/openapi/v3/apis/apps/v1", "gzip", "", vec!["Accept"]),
        ("/metrics", "gzip", "gzip", vec![]),
        ("/metrics", "identity", "", vec![]),
    ] {
        let request = Request::get(path).header(ACCEPT_ENCODING, accepted).body(Body::empty());
        let response = fixture.server.answer(Some(fixture.admin.clone()), request.expect("a request")).await;
        assert_eq!(header(&response, CONTENT_ENCODING), packed, "{path} {accepted}");
        assert_eq!(response.headers().get_all(VARY).iter().collect::<Vec<_>>(), vary, "{path} {accepted}");
    }
    fixture.stop().await;
}
