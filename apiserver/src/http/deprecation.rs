//! Warnings of kinds and versions that will go.

use coracle_api::kinds::Kind;

/// What to tell whoever asks for objects of `kind`.
#[must_use]
pub fn warning(kind: &Kind) -> Option<String> {
    if let Some(version) = kind.custom.as_deref() {
        let own = || {
            let told = format!("{} {} is deprecated", kind.api_version(), kind.kind);
            match version["successor"].as_str() {
                Some(newer) => format!("{told}; use {}/{newer} {}", kind.group, kind.kind),
                None => told,
            }
        };
        let told = version["deprecationWarning"].as_str().map(str::to_owned);
        return (version["deprecated"] == true).then(|| told.unwrap_or_else(own));
    }
    let text = match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Endpoints") => "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        ("", "ComponentStatus") => "v1 ComponentStatus is deprecated in v1.19+",
        _ => return None,
    };
    Some(text.to_owned())
}
