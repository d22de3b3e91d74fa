"""What pods may do: the `restricted` Pod Security Standard, and what we ask beyond it."""

import re

from .manifests import quantity

# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}


def namespace_is_restricted(manifests):
    """The namespace enforces the standard, of a fixed version."""
    namespaces = manifests.of("Namespace")
    if len(namespaces) != 1:
        yield f"there are {len(namespaces)} Namespaces, not one"
    for namespace in namespaces:
        labels = namespace["metadata"].get("labels", {})
        for mode in ("enforce", "warn", "audit"):
            if labels.get(f"pod-security.kubernetes.io/{mode}") != "restricted":
                yield f"Namespace: {mode} is not restricted"
            if not re.fullmatch(r"v1\.\d+", labels.get(f"pod-security.kubernetes.io/{mode}-version", "")):
                yield f"Namespace: {mode}-version is not a fixed version"
        for document in manifests.documents:
            inside = document["metadata"].get("namespace")
            if document["kind"] != "Namespace" and inside != namespace["metadata"]["name"]:
                yield f"{document['kind']} {document['metadata']['name']}: is in namespace {inside}"


def pods_are_restricted(manifests):
    """What the API server enforces by the namespace's label, checked without one."""
    for workload in manifests.workloads():
        pod = workload.pod
        context = pod.get("securityContext", {})
        for forbidden in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(forbidden):
                yield f"{workload}: {forbidden}"
        for volume in pod.get("volumes", []):
            for kind in set(volume) - {"name"} - RESTRICTED_VOLUMES:
                yield f"{workload}: a volume of kind {kind}"
        if context.get("sysctls"):
            yield f"{workload}: sysctls"
        for container in workload.containers:
            yield from _container_is_restricted(f"{workload}, {container['name']}", container, context)


def _container_is_restricted(where, container, pod_context):
    context = container.get("securityContext", {})

    def effective(key):
        return context.get(key, pod_context.get(key))

    if effective("runAsNonRoot") is not True:
        yield f"{where}: runAsNonRoot is not true"
    if effective("runAsUser") in (0, None):
        yield f"{where}: runAsUser is root or left to the image"
    if (effective("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{where}: no seccomp profile"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: privileges may be escalated"
    if context.get("privileged"):
        yield f"{where}: privileged"
    capabilities = context.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield f"{where}: capabilities are not all dropped"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{where}: the root file system can be written"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield f"{where}: hostPort"


def tokens_are_off(manifests):
    """Nobody needs the API server: an account of its own for each workload, and no token in any pod."""
    accounts = {account["metadata"]["name"]: account for account in manifests.of("ServiceAccount")}
    for name, account in accounts.items():
        if account.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {name}: mounts its token"
    users = {}
    for workload in manifests.workloads():
        name = workload.pod.get("serviceAccountName")
        if name not in accounts:
            yield f"{workload}: has no ServiceAccount of its own"
        elif name in users:
            yield f"{workload}: shares its ServiceAccount with {users[name]}"
        users[name] = workload
        if workload.pod.get("automountServiceAccountToken") is not False:
            yield f"{workload}: mounts a token"
        # Variables like KAFKA_PORT, made from Services, would be taken for settings.
        if workload.pod.get("enableServiceLinks") is not False:
            yield f"{workload}: enableServiceLinks is not false"
    for name in set(accounts) - set(users):
        yield f"ServiceAccount {name}: nobody uses it"


def images_are_pinned(manifests):
    """Every image has a tag that says which; in the cluster one that does not move."""
    for workload in manifests.workloads():
        for container in workload.containers:
            image = container["image"]
            tag = image.rpartition("/")[2].partition(":")[2].partition("@")[0]
            if "@sha256:" in image:
                continue
            if tag in ("", "latest"):
                yield f"{workload}: image {image} has no fixed tag"
            if manifests.overlay == "cluster" and image.partition("/")[0].count(".") and not re.search(r"\d", tag):
                yield f"{workload}: image {image} has a tag that moves"


def resources_are_bounded(manifests):
    """Requests and limits for CPU and memory, and no request above its limit."""
    for workload in manifests.workloads():
        for container in workload.containers:
            where = f"{workload}, {container['name']}"
            resources = container.get("resources", {})
            requests, limits = resources.get("requests", {}), resources.get("limits", {})
            for resource in ("cpu", "memory"):
                if resource not in requests or resource not in limits:
                    yield f"{where}: no request or no limit for {resource}"
                elif quantity(requests[resource]) > quantity(limits[resource]):
                    yield f"{where}: asks for more {resource} than its limit"
        for volume in workload.pod.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
                yield f"{workload}: volume {volume['name']} has no size limit"


def secrets_are_kept(manifests):
    """Passwords come by files that not everybody may read, and only to a store and the service that owns it."""
    for workload in manifests.workloads():
        for container in workload.containers:
            environment = manifests.environment(container)
            for name, value in environment.items():
                if re.search(r"(PASSWORD|SECRET|TOKEN|AUTH)$", name) and value:
                    yield f"{workload}: {name} is in the manifest"
            store = environment.get("REDIS", workload.name).partition(":")[0]
        for volume in workload.pod.get("volumes", []):
            if "secret" not in volume:
                continue
            if volume["secret"].get("defaultMode", 0o644) & 0o007:
                yield f"{workload}: everybody in the container can read volume {volume['name']}"
            if not volume["secret"]["secretName"].startswith(f"{store}-auth"):
                yield f"{workload}: has the Secret {volume['secret']['secretName']}, which is not that of {store}"


RULES = (
    namespace_is_restricted,
    pods_are_restricted,
    tokens_are_off,
    images_are_pinned,
    resources_are_bounded,
    secrets_are_kept,
)
