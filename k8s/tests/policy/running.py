"""How pods start, are found, scale, roll over and end."""

import re

from .manifests import selects

# Not stored with the manifests: how long a process may go on after its drain (crates/service-kit/src/process.rs).
_AFTER_DRAIN = ("TELEMETRY_DEADLINE", "RUNTIME_DEADLINE")
# The parts of DRAIN_DEADLINE_S that are for open requests: order-svc/src/lib.rs and gateway/src/lib.rs.
_ORDER_SHARE = 2 / 3
_GATEWAY_RESERVE_S = 1


def probes_are_there(manifests):
    """Startup, liveness and readiness for what goes on; the right paths for our services."""
    for workload in manifests.workloads():
        if workload.kind == "Job":
            continue
        for container in workload.pod["containers"]:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe not in container:
                    yield f"{workload}: no {probe}"
            if not workload.is_service:
                continue
            for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
                if container.get(probe, {}).get("httpGet") != {"path": path, "port": "admin"}:
                    yield f"{workload}: {probe} does not ask {path} on the admin port"
            patience_s = _patience_s(container.get("startupProbe", {}))
            if patience_s < 180:
                yield f"{workload}: {patience_s} s to start; it asks its Redis for up to 90 s, and then a broker for as long"


def _patience_s(probe):
    return probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)


def rollouts_are_smooth(manifests):
    """A new replica first, spread over nodes, and old ones stay until callers know the new one."""
    for deployment in manifests.workloads():
        if deployment.kind != "Deployment":
            continue
        strategy = deployment.spec.get("strategy", {}).get("rollingUpdate", {})
        if strategy.get("maxUnavailable") != 0 or not strategy.get("maxSurge"):
            yield f"{deployment}: its rolling update takes replicas away before new ones are ready"
        if deployment.spec.get("minReadySeconds", 0) <= 30:
            yield f"{deployment}: minReadySeconds is not above the 30 s that DNS may answer from its cache"
        spreads = deployment.pod.get("topologySpreadConstraints", [])
        if "kubernetes.io/hostname" not in [spread["topologyKey"] for spread in spreads]:
            yield f"{deployment}: not spread over nodes"
        for spread in spreads:
            keys = spread.get("matchLabelKeys", [])
            if not selects(spread.get("labelSelector"), deployment.labels) or "app.kubernetes.io/name" not in keys:
                yield f"{deployment}: its topology spread does not count its own replicas"


def budgets_are_there(manifests):
    """One disruption budget per Deployment; none that keeps a node from being emptied."""
    budgets = manifests.of("PodDisruptionBudget")
    for workload in manifests.workloads():
        own = [budget for budget in budgets if selects(budget["spec"]["selector"], workload.labels)]
        if workload.kind == "Deployment" and len(own) != 1:
            yield f"{workload}: {len(own)} PodDisruptionBudgets, not one"
        for budget in own:
            if budget["spec"].get("maxUnavailable") != 1:
                yield f"{workload}: its PodDisruptionBudget must allow exactly one to be away"
    for budget in budgets:
        if not any(selects(budget["spec"]["selector"], workload.labels) for workload in manifests.workloads()):
            yield f"PodDisruptionBudget {budget['metadata']['name']}: selects nothing"


def autoscalers_have_a_target(manifests):
    """An autoscaler scales a Deployment that names no number itself, keeps two at least, and looks at the CPU."""
    for scaler in manifests.of("HorizontalPodAutoscaler"):
        name, spec = scaler["metadata"]["name"], scaler["spec"]
        target = manifests.one("Deployment", spec["scaleTargetRef"]["name"])
        if target is None:
            yield f"HorizontalPodAutoscaler {name}: scales nothing"
        elif "replicas" in target["spec"]:
            yield f"Deployment {target['metadata']['name']}: names its replicas, and so undoes what the autoscaler decided"
        if not 2 <= spec.get("minReplicas", 1) <= spec["maxReplicas"]:
            yield f"HorizontalPodAutoscaler {name}: from {spec.get('minReplicas', 1)} to {spec['maxReplicas']} replicas"
        if "cpu" not in [metric.get("resource", {}).get("name") for metric in spec["metrics"]]:
            yield f"HorizontalPodAutoscaler {name}: does not look at the CPU"


def ends_fit_the_drain(manifests, repository):
    """SIGKILL comes after the drain, and the drain is longer than the longest wait of a request."""
    after_drain_s = _after_drain_s(repository)
    for service in manifests.services():
        container = service.pod["containers"][0]
        environment = manifests.environment(container)
        drain_s = int(environment.get("DRAIN_DEADLINE_S") or repository.default(service.name, "DRAIN_DEADLINE_S"))
        stop = container.get("lifecycle", {}).get("preStop", {})
        pause_s = stop.get("sleep", {}).get("seconds")
        if set(stop) != {"sleep"}:
            yield f"{service}: preStop is not a sleep by the kubelet; the image has no shell"
            continue
        needed_s = pause_s + drain_s + after_drain_s
        grace_s = service.pod.get("terminationGracePeriodSeconds", 30)
        if grace_s <= needed_s:
            yield f"{service}: its end may take {pause_s} + {drain_s} + {after_drain_s} s, the grace period is {grace_s} s"
        yield from _drain_outlasts_requests(service, environment, drain_s, repository)


def _drain_outlasts_requests(service, environment, drain_s, repository):
    def milliseconds(name):
        return int(environment.get(name) or repository.default(service.name, name)) / 1000

    if service.name == "order-svc" and drain_s * _ORDER_SHARE <= milliseconds("CHECKOUT_WAIT_MS"):
        yield f"{service}: a drain of {drain_s} s cuts off checkouts that may still wait"
    if service.name == "gateway" and drain_s - _GATEWAY_RESERVE_S <= milliseconds("REQUEST_TIMEOUT_MS"):
        yield f"{service}: a drain of {drain_s} s cuts off requests that may still run"


def _after_drain_s(repository):
    source = repository.text("crates/service-kit/src/process.rs")
    found = [re.search(rf"{name}: Duration = Duration::from_secs\((\d+)\)", source) for name in _AFTER_DRAIN]
    if None in found:
        raise SystemExit(f"policy: {' or '.join(_AFTER_DRAIN)} is no longer in process.rs; mend this rule")
    return sum(int(match.group(1)) for match in found)


def ingress_waits_long_enough(manifests, repository):
    """Whoever stands before the gateway waits longer than it does, and repeats nothing."""
    for ingress in manifests.of("Ingress"):
        annotations = ingress["metadata"].get("annotations", {})
        timeout_s = int(repository.default("gateway", "REQUEST_TIMEOUT_MS")) / 1000
        if float(annotations.get("nginx.ingress.kubernetes.io/proxy-read-timeout", 0)) <= timeout_s:
            yield f"Ingress {ingress['metadata']['name']}: waits no longer than the gateway's {timeout_s:.0f} s"
        if annotations.get("nginx.ingress.kubernetes.io/proxy-next-upstream") != "off":
            yield f"Ingress {ingress['metadata']['name']}: may repeat requests"


RULES = (
    probes_are_there,
    rollouts_are_smooth,
    budgets_are_there,
    autoscalers_have_a_target,
    ends_fit_the_drain,
    ingress_waits_long_enough,
)
