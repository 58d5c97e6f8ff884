//! What a pod says of itself: its phase and its containers, of every kind.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// The pod's phase as last reported.
pub fn phase_of(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Init containers first, then the others, as they start.
pub fn containers_of(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// Containers that were added to the pod while it ran. They start once, have no probes and no hooks, and are of no
/// consequence to the pod; apart from that they are like any other.
pub fn ephemeral_of(spec: &PodSpec) -> impl Iterator<Item = Container> + '_ {
    spec.ephemeral_containers.iter().flatten().map(|own| Container {
        name: own.name.clone(),
        image: own.image.clone(),
        image_pull_policy: own.image_pull_policy.clone(),
        command: own.command.clone(),
        args: own.args.clone(),
        working_dir: own.working_dir.clone(),
        env: own.env.clone(),
        env_from: own.env_from.clone(),
        resources: own.resources.clone(),
        security_context: own.security_context.clone(),
        volume_mounts: own.volume_mounts.clone(),
        volume_devices: own.volume_devices.clone(),
        stdin: own.stdin,
        stdin_once: own.stdin_once,
        tty: own.tty,
        termination_message_path: own.termination_message_path.clone(),
        termination_message_policy: own.termination_message_policy.clone(),
        ..Container::default()
    })
}

/// The container of that name, of whichever kind.
pub fn container_named(spec: &PodSpec, name: &str) -> Option<Container> {
    let own = containers_of(spec).find(|one| one.name == name).cloned();
    own.or_else(|| ephemeral_of(spec).find(|one| one.name == name))
}

/// Whether an init container is one that runs as long as its pod.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}
