"""What users of the Python client do: typed, dynamic, watching, patching, and running commands in containers.

    client.py objects|containers      the kubeconfig is that of $KUBECONFIG

Ends with 0 when all of it works; an assertion tells what does not.
"""
import sys

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

NAMESPACE = "python"


def refused(code, call, *args, **kwargs):
    try:
        answer = call(*args, **kwargs)
    except ApiException as error:
        assert error.status == code, error
        return error
    raise AssertionError(f"{code} was expected, but: {answer}")


def config_maps(api):
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="a", labels={"l": "1"}), data={"n": "0"})
    made = api.create_namespaced_config_map(NAMESPACE, body)
    refused(409, api.create_namespaced_config_map, NAMESPACE, body)
    for n in ("1", "2"):
        api.patch_namespaced_config_map("a", NAMESPACE, {"data": {"n": n}})
    told = []
    follower = watch.Watch()
    version = made.metadata.resource_version
    for event in follower.stream(api.list_namespaced_config_map, NAMESPACE, label_selector="l=1",
                                 resource_version=version, timeout_seconds=20):
        told.append((event["type"], event["object"].data["n"]))
        if event["object"].data["n"] == "2":
            follower.stop()
    assert told == [("MODIFIED", "1"), ("MODIFIED", "2")], told
    stale = refused(409, api.replace_namespaced_config_map, "a", NAMESPACE, made)
    assert "the object has been modified" in stale.body, stale
    for n in range(5):
        body.metadata = client.V1ObjectMeta(name=f"page-{n}", labels={"book": "1"})
        api.create_namespaced_config_map(NAMESPACE, body)
    names, token = [], None
    while token != "":
        page = api.list_namespaced_config_map(NAMESPACE, label_selector="book=1", limit=2, _continue=token or "")
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue or ""
    assert names == [f"page-{n}" for n in range(5)], names
    api.delete_collection_namespaced_config_map(NAMESPACE, label_selector="book=1")
    api.delete_namespaced_config_map("a", NAMESPACE, propagation_policy="Foreground")
    invalid = refused(422, api.create_namespaced_config_map, NAMESPACE,
                      {"metadata": {"name": "Bad_"}}, _preload_content=False)
    assert "metadata.name" in str(invalid.body), invalid


def deployments(api_client):
    apps = client.AppsV1Api(api_client)
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": NAMESPACE},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template}}
    utils.create_from_dict(api_client, body, namespace=NAMESPACE)
    scale = apps.read_namespaced_deployment_scale("d", NAMESPACE)
    assert scale.status.selector == "a=b", scale
    scale.spec.replicas = 2
    # The controller may have written its status since.
    scale.metadata.resource_version = None
    apps.replace_namespaced_deployment_scale("d", NAMESPACE, scale)
    apps.patch_namespaced_deployment_scale("d", NAMESPACE, [{"op": "replace", "path": "/spec/replicas", "value": 1}])
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "e", "image": "j"}]}}}}
    patched = apps.patch_namespaced_deployment("d", NAMESPACE, patch)
    assert patched.spec.replicas == 1 and len(patched.spec.template.spec.containers) == 2, patched
    dry = apps.delete_namespaced_deployment("d", NAMESPACE, dry_run="All")
    assert dry.status == "Success", dry
    apps.delete_namespaced_deployment("d", NAMESPACE)


def custom_kind(api_client):
    definitions = client.ApiextensionsV1Api(api_client)
    name = "keels.python.coracle.dev"
    schema = {"type": "object", "properties": {"spec": {"type": "object", "required": ["length"], "properties": {
        "length": {"type": "integer", "minimum": 1}, "wood": {"type": "string", "default": "oak"}}}}}
    definitions.create_custom_resource_definition({
        "metadata": {"name": name}, "spec": {"group": "python.coracle.dev", "scope": "Namespaced",
            "names": {"plural": "keels", "kind": "Keel"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]}})
    follower = watch.Watch()
    for event in follower.stream(definitions.list_custom_resource_definition,
                                 field_selector=f"metadata.name={name}", timeout_seconds=20):
        conditions = {c.type: c.status for c in (event["object"].status.conditions or [])}
        if conditions.get("Established") == "True":
            follower.stop()
    api = client.CustomObjectsApi(api_client)
    place = ("python.coracle.dev", "v1", NAMESPACE, "keels")
    keel = {"apiVersion": "python.coracle.dev/v1", "kind": "Keel", "metadata": {"name": "k"}, "spec": {"length": 3}}
    made = api.create_namespaced_custom_object(*place, keel)
    assert made["spec"]["wood"] == "oak", made
    keel["metadata"]["name"], keel["spec"]["length"] = "short", 0
    error = refused(422, api.create_namespaced_custom_object, *place, keel)
    assert "spec.length" in error.body, error
    api.patch_namespaced_custom_object(*place, "k", {"spec": {"length": 4}})
    assert len(api.list_namespaced_custom_object(*place)["items"]) == 1
    dynamically(api_client)
    definitions.delete_custom_resource_definition(name)


def dynamically(api_client):
    api = dynamic.DynamicClient(api_client)
    keels = api.resources.get(api_version="python.coracle.dev/v1", kind="Keel")
    assert keels.get(name="k", namespace=NAMESPACE).spec.length == 4
    applied = {"apiVersion": "python.coracle.dev/v1", "kind": "Keel", "metadata": {"name": "k"}, "spec": {"length": 5}}
    keels.patch(body=applied, namespace=NAMESPACE, name="k", content_type="application/merge-patch+json")
    told = [event["object"].spec.length for event in keels.watch(namespace=NAMESPACE, timeout=1)]
    assert told == [5], told
    services = api.resources.get(api_version="v1", kind="Service")
    made = services.create(body={"kind": "Service", "apiVersion": "v1", "metadata": {"name": "s"},
                                 "spec": {"ports": [{"port": 80}]}}, namespace=NAMESPACE)
    assert made.spec.clusterIP
    services.delete(name="s", namespace=NAMESPACE)
    keels.delete(name="k", namespace=NAMESPACE)


def objects(api_client):
    config_maps(client.CoreV1Api(api_client))
    deployments(api_client)
    custom_kind(api_client)
    groups = {group.name for group in client.ApisApi(api_client).get_api_versions().groups}
    assert {"apps", "batch", "rbac.authorization.k8s.io"} <= groups, groups
    assert client.VersionApi(api_client).get_code().minor == "33"


def containers(api_client):
    api = client.CoreV1Api(api_client)
    pod = {"metadata": {"name": "p"}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "c", "image": "busybox", "command": ["sh", "-c", "echo ahoy; sleep 3600"]}]}}
    api.create_namespaced_pod(NAMESPACE, pod)
    follower = watch.Watch()
    for event in follower.stream(api.list_namespaced_pod, NAMESPACE, field_selector="metadata.name=p", timeout_seconds=60):
        if event["object"].status.phase == "Running":
            follower.stop()
    assert api.read_namespaced_pod_log("p", NAMESPACE) == "ahoy\n"
    told = stream(api.connect_get_namespaced_pod_exec, "p", NAMESPACE, command=["echo", "aye"],
                  stdout=True, stderr=True, stdin=False, tty=False)
    assert told == "aye\n", told
    running = stream(api.connect_get_namespaced_pod_exec, "p", NAMESPACE, command=["sh"], stdin=True,
                     stdout=True, stderr=True, tty=False, _preload_content=False)
    running.write_stdin("echo in; echo err >&2; exit 3\n")
    running.run_forever(timeout=20)
    assert (running.read_stdout(), running.read_stderr(), running.returncode) == ("in\n", "err\n", 3)
    api.delete_namespaced_pod("p", NAMESPACE)


def main(what):
    config.load_kube_config()
    api_client = client.ApiClient()
    core = client.CoreV1Api(api_client)
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    try:
        {"objects": objects, "containers": containers}[what](api_client)
    finally:
        core.delete_namespace(NAMESPACE)
    print("done")


main(sys.argv[1])
