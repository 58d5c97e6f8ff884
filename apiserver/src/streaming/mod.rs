//! log, exec, attach, port-forward and proxy: through to the kubelet (or a pod or service address), upgrades tunnelled.
