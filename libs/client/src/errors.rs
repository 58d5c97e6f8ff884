//! Questions about a failed request, by the Status that came with it.

use kube::Error;

fn status(error: &Error) -> Option<&kube::core::Status> {
    match error {
        Error::Api(status) => Some(status),
        _ => None,
    }
}

/// The object, or its kind, is not there.
#[must_use]
pub fn is_not_found(error: &Error) -> bool {
    status(error).is_some_and(|status| status.code == 404)
}

/// Someone else wrote first (not the same as [`is_already_exists`], which is 409 too).
#[must_use]
pub fn is_conflict(error: &Error) -> bool {
    status(error).is_some_and(|status| status.code == 409 && status.reason != "AlreadyExists")
}

/// The name is taken.
#[must_use]
pub fn is_already_exists(error: &Error) -> bool {
    status(error).is_some_and(|status| status.reason == "AlreadyExists")
}

/// The namespace is going away and takes no new objects.
#[must_use]
pub fn is_namespace_terminating(error: &Error) -> bool {
    status(error).is_some_and(|status| {
        status.code == 403
            && (status.message.contains("because it is being terminated")
                || status
                    .details
                    .iter()
                    .any(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")))
    })
}

/// The resourceVersion asked for is no longer kept: only a new list helps.
#[must_use]
pub fn is_gone(error: &Error) -> bool {
    status(error).is_some_and(|status| status.code == 410 || status.reason == "Expired")
}

/// The answer stays the same until someone changes something: forbidden, invalid, not found.
#[must_use]
pub fn is_refusal(error: &Error) -> bool {
    status(error).is_some_and(|status| {
        (400..500).contains(&status.code) && !matches!(status.code, 408 | 409 | 410 | 429)
    })
}
