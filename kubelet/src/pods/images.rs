//! Sees to a container's image by its pull policy.

use super::act::again;
use super::{Entry, Pods, chain};
use crate::launch::{Found, Lookup, text};
use crate::runtime::reference::Reference;
use crate::runtime::{RegistryAuth, RuntimeError};
use crate::step::{BACK_OFF_FIRST, BACK_OFF_MOST, Image, container_named};
use coracle_daemon::clock;
use k8s_openapi::api::core::v1::{Pod, Secret};
use std::sync::Arc;

/// What the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It is here and may be used.
    Use,
    /// It is to be fetched.
    Pull,
    /// It is not here and may not be fetched.
    Never,
}

fn decide(policy: Option<&str>, image: &str, here: bool, provided: bool) -> Answer {
    let latest = || {
        let last = image.rsplit('/').next().unwrap_or(image);
        !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"))
    };
    match (policy, here) {
        (Some("Never"), true) | (Some("IfNotPresent"), true) => Answer::Use,
        (Some("Never"), false) => Answer::Never,
        (Some("IfNotPresent"), false) => Answer::Pull,
        // The API sets a policy; without one, it follows from the name.
        (None, true) if !latest() => Answer::Use,
        _ if here && provided => Answer::Use,
        _ => Answer::Pull,
    }
}

impl Pods {
    pub(super) async fn see_to_image(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        pod: &Arc<Pod>,
        name: &str,
        attempt: u32,
    ) {
        let ready = |image| entry.memory.lock().images.insert(name.to_owned(), image);
        let container = pod.spec.as_ref().and_then(|spec| container_named(spec, name));
        let Some(container) = container else { return };
        if self.ground.is_none() {
            ready(Image::Ready { attempt });
            return;
        }
        let image = container.image.clone().unwrap_or_default();
        if Reference::parse(&image).is_err() {
            let why = format!(
                "Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: invalid reference format"
            );
            self.warn(pod, name, "InspectFailed", why.clone());
            return self.no_image(entry, pod, name, "InvalidImageName", why);
        }
        let here = match self.runtime.image(&image).await {
            Ok(here) => here,
            Err(error) => {
                let why = format!("Failed to inspect image {image:?}: {}", chain(&error));
                self.warn(pod, name, "InspectFailed", why.clone());
                return self.no_image(entry, pod, name, "ImageInspectError", why);
            }
        };
        let provided = here.as_ref().is_some_and(|here| here.provided);
        match decide(container.image_pull_policy.as_deref(), &image, here.is_some(), provided) {
            Answer::Use => {
                self.note(
                    pod,
                    name,
                    "Pulled",
                    format!("Container image {image:?} already present on machine"),
                );
                ready(Image::Ready { attempt });
            }
            Answer::Never => {
                let why = format!("Container image {image:?} is not present with pull policy of Never");
                self.warn(pod, name, "ErrImageNeverPull", why.clone());
                self.no_image(entry, pod, name, "ErrImageNeverPull", why);
            }
            Answer::Pull => self.pull(entry, pod, name, image, attempt),
        }
    }

    fn no_image(&self, entry: &Entry, pod: &Pod, name: &str, reason: &'static str, message: String) {
        self.warn(pod, name, "Failed", format!("Error: {reason}"));
        let mut memory = entry.memory.lock();
        let before = match memory.images.get(name) {
            Some(Image::Failed { retry, .. }) => Some(*retry),
            _ => memory.pulls.get(name).copied(),
        };
        let retry = again(before, BACK_OFF_FIRST, BACK_OFF_MOST);
        memory.pulls.insert(name.to_owned(), retry);
        memory.images.insert(name.to_owned(), Image::Failed { reason, message, at: clock::now(), retry });
    }

    /// Fetches it beside the pod's steps.
    fn pull(self: &Arc<Self>, entry: &Arc<Entry>, pod: &Arc<Pod>, name: &str, image: String, attempt: u32) {
        entry.memory.lock().images.insert(name.to_owned(), Image::Pulling);
        self.note(pod, name, "Pulling", format!("Pulling image {image:?}"));
        let (this, entry, pod, name) = (self.clone(), entry.clone(), pod.clone(), name.to_owned());
        entry.scope.clone().spawn(format!("pull of {image}"), async move {
            let began = clock::Instant::now();
            let auth = this.credentials(&pod, &image);
            match this.runtime.pull(&image, auth.as_ref()).await {
                Ok(pulled) => {
                    let took = began.elapsed().as_millis();
                    let took = format!("{}.{:03}s", took / 1000, took % 1000);
                    let text = format!(
                        "Successfully pulled image {image:?} in {took} ({took} including waiting). Image size: {} bytes.",
                        pulled.size
                    );
                    this.note(&pod, &name, "Pulled", text);
                    let mut memory = entry.memory.lock();
                    memory.pulls.remove(&name);
                    memory.images.insert(name, Image::Ready { attempt });
                }
                Err(error) => {
                    let why = match error {
                        RuntimeError::Pull { why, .. } => why,
                        other => chain(&other),
                    };
                    this.warn(&pod, &name, "Failed", format!("Failed to pull image {image:?}: {why}"));
                    this.no_image(&entry, &pod, &name, "ErrImagePull", why);
                }
            }
            this.queue.add(entry.key.clone());
        });
    }

    /// The first of the pod's `imagePullSecrets` that knows the image's registry.
    fn credentials(&self, pod: &Pod, image: &str) -> Option<RegistryAuth> {
        let ground = self.ground.as_ref()?;
        let objects = crate::objects::of_pod(&ground.objects, pod);
        let names = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
        names.into_iter().find_map(|secret| match objects.secret(&secret.name) {
            Found::Here(secret) => login(&secret, registry(image)),
            _ => None,
        })
    }
}

/// The host in an image's name.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn login(secret: &Secret, registry: &str) -> Option<RegistryAuth> {
    use base64::Engine;
    let bytes = &secret.data.as_ref()?.get(".dockerconfigjson")?.0;
    let config: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let known = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        let host = key.split('/').next().unwrap_or_default();
        host == registry || (registry == "docker.io" && host == "index.docker.io")
    };
    let (_, found) = config["auths"].as_object()?.iter().find(|(key, _)| known(key))?;
    let field = |name: &str| found[name].as_str().map(str::to_owned);
    if let (Some(username), Some(password)) = (field("username"), field("password")) {
        return Some(RegistryAuth { username, password });
    }
    let both = base64::engine::general_purpose::STANDARD.decode(text(field("auth").as_ref())).ok()?;
    let both = String::from_utf8(both).ok()?;
    let (username, password) = both.split_once(':')?;
    Some(RegistryAuth { username: username.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_pull_policy_decides() {
        for (policy, image, here, provided, expected) in [
            (Some("Always"), "a:1", true, false, Answer::Pull),
            (Some("Always"), "a:1", true, true, Answer::Use),
            (Some("Always"), "a:1", false, false, Answer::Pull),
            (Some("IfNotPresent"), "a:1", true, false, Answer::Use),
            (Some("IfNotPresent"), "a:1", false, false, Answer::Pull),
            (Some("Never"), "a:1", true, false, Answer::Use),
            (Some("Never"), "a:1", false, false, Answer::Never),
            (None, "a:1", true, false, Answer::Use),
            (None, "a", true, false, Answer::Pull),
            (None, "host:5000/a:latest", true, false, Answer::Pull),
            (None, "a@sha256:0", true, false, Answer::Use),
        ] {
            assert_eq!(
                decide(policy, image, here, provided),
                expected,
                "{policy:?} {image} {here} {provided}"
            );
        }
    }

    #[test]
    fn pull_secrets_are_found_by_registry() {
        let config = json!({ "auths": {
            "https://index.docker.io/v1/": { "auth": "dTpw" },
            "reg.example:5000": { "username": "a", "password": "b" },
        } });
        let data = json!({ "data": { ".dockerconfigjson":
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, config.to_string()) } });
        let secret: Secret = serde_json::from_value(data).unwrap();
        let user = |image| login(&secret, registry(image)).map(|auth| auth.username);
        assert_eq!(user("nginx:1"), Some("u".to_owned()));
        assert_eq!(user("reg.example:5000/x/y"), Some("a".to_owned()));
        assert_eq!(user("other.example/x"), None);
    }
}
