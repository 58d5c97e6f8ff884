//! Discovery documents: legacy (`/api`, `/apis`, `/apis/G`, `/apis/G/V`) and aggregated (`apidiscovery.k8s.io` v2, v2beta1).

use crate::kinds::Kind;
use serde_json::Value;
use std::sync::Arc;

/// `APIVersions` for `/api`; `server` is `host:port` for `serverAddressByClientCIDRs`.
#[must_use]
pub fn api_versions(server: &str) -> Value {
    unimplemented!("A {server}")
}

/// `APIGroupList` for `/apis`.
#[must_use]
pub fn group_list(custom: &[Arc<Kind>]) -> Value {
    unimplemented!("A {custom:?}")
}

/// `APIGroup` for `/apis/G`.
#[must_use]
pub fn group(name: &str, custom: &[Arc<Kind>]) -> Option<Value> {
    unimplemented!("A {name} {custom:?}")
}

/// `APIResourceList` for `/api/v1` (`""`, `v1`) and `/apis/G/V`.
#[must_use]
pub fn resource_list(group: &str, version: &str, custom: &[Arc<Kind>]) -> Option<Value> {
    unimplemented!("A {group} {version} {custom:?}")
}

/// `APIGroupDiscoveryList` in `version` (`v2` or `v2beta1`), for `/api` (`core`) or `/apis`.
#[must_use]
pub fn aggregated(version: &str, core: bool, custom: &[Arc<Kind>]) -> Value {
    unimplemented!("A {version} {core} {custom:?}")
}
