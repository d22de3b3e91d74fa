"""Settings and addresses: every name that the manifests use is known to somebody, and every value fits its neighbours."""

import re

from .manifests import Workload, quantity, selects

_REFERENCE = re.compile(r"\$\(([A-Z0-9_]+)\)")
# Settings that every Redis must have: crates/redis-txn/src/check.rs.
_REDIS_RULES = {
    "appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no", "maxmemory-policy": "noeviction",
}


def names_are_settings(manifests, repository):
    """Each variable of a service is a setting of that service; each of another program is used in its arguments."""
    for workload in manifests.workloads():
        for container in workload.containers:
            names = manifests.environment(container)
            words = container.get("command", []) + container.get("args", [])
            used = {name for word in words for name in _REFERENCE.findall(word)}
            for name in used - set(names):
                yield f"{workload}: $({name}) in its arguments is not set"
            for name in names:
                if workload.is_service and not repository.knows(workload.name, name):
                    yield f"{workload}: {name} is not a setting of {workload.name} (docs/settings/{workload.name}.md)"
                if workload.kind == "Job" and name not in used:
                    yield f"{workload}: nothing uses {name}"


def references_exist(manifests):
    """What pods mount and read is there, and what is there is mounted or read."""
    used = {"ConfigMap": set(), "Secret": set()}
    for workload in manifests.workloads():
        for kind, name, keys in _references(workload):
            used[kind].add(name)
            document = manifests.one(kind, name)
            if document is None:
                yield f"{workload}: {kind} {name} does not exist"
                continue
            for key in keys:
                if key not in document.get("data", {}):
                    yield f"{workload}: {kind} {name} has no key {key}"
    for kind, names in used.items():
        for document in manifests.of(kind):
            if document["metadata"]["name"] not in names:
                yield f"{kind} {document['metadata']['name']}: nobody uses it"


def _references(workload):
    for container in workload.containers:
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                yield "ConfigMap", source["configMapRef"]["name"], []
            if "secretRef" in source:
                yield "Secret", source["secretRef"]["name"], []
        for entry in container.get("env", []):
            origin = entry.get("valueFrom", {})
            for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if field in origin:
                    yield kind, origin[field]["name"], [origin[field]["key"]]
    for volume in workload.pod.get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"], _keys(volume["configMap"])
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"], _keys(volume["secret"])


def _keys(source):
    return [item["key"] for item in source.get("items", [])]


def files_are_mounted(manifests):
    """A setting that names a file or folder names a mounted one."""
    for service in manifests.services():
        container = service.pod["containers"][0]
        mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        for name, value in manifests.environment(container).items():
            if name.endswith(("_FILE", "_DIR")) and value:
                if not any(value == mount or value.startswith(f"{mount}/") for mount in mounts):
                    yield f"{service}: {name} is {value}, where nothing is mounted"


def ports_are_open(manifests):
    """A service listens on the ports that its container names, on all addresses."""
    for service in manifests.services():
        environment = manifests.environment(service.pod["containers"][0])
        ports = service.ports()
        for name, port in (("LISTEN", ports.get("http")), ("ADMIN_LISTEN", ports.get("admin"))):
            if port is not None and environment.get(name) != f"0.0.0.0:{port}":
                yield f"{service}: {name} is {environment.get(name)}, its container's port {port}"
        annotations = service.template["metadata"].get("annotations", {})
        if annotations.get("prometheus.io/port") != str(ports.get("admin")):
            yield f"{service}: Prometheus is sent to port {annotations.get('prometheus.io/port')}"
    for service in manifests.of("Service"):
        targets = [it for it in manifests.workloads() if selects({"matchLabels": service["spec"]["selector"]}, it.labels)]
        if len(targets) != 1:
            yield f"Service {service['metadata']['name']}: selects {len(targets)} workloads"
        for port in service["spec"]["ports"]:
            if any(port["targetPort"] not in target.ports() for target in targets):
                yield f"Service {service['metadata']['name']}: its pods have no port {port['targetPort']}"


def addresses_exist(manifests):
    """Every host:port in a setting is a Service of this overlay; a dns: address is one without an address of its own."""
    for service in manifests.services():
        for name, value in manifests.environment(service.pod["containers"][0]).items():
            if name not in ("REDIS", "KAFKA_BROKERS") and not name.endswith("_UPSTREAMS"):
                continue
            for address in value.removeprefix("dns:").split(","):
                host, _, port = address.rpartition(":")
                found = manifests.one("Service", host)
                if found is None and _is_strimzi_address(manifests, host, port):
                    continue
                if found is None or int(port) not in [entry["port"] for entry in found["spec"]["ports"]]:
                    yield f"{service}: {name} names {address}, which is no Service here"
                elif value.startswith("dns:") != (found["spec"].get("clusterIP") == "None"):
                    yield f"{service}: {name} is {value}, which does not fit the Service's kind"
    for ingress in manifests.of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                if manifests.one("Service", path["backend"]["service"]["name"]) is None:
                    yield f"Ingress {ingress['metadata']['name']}: its Service does not exist"


def _is_strimzi_address(manifests, host, port):
    return any(
        host == f"{kafka['metadata']['name']}-kafka-bootstrap"
        and int(port) in [listener["port"] for listener in kafka["spec"]["kafka"]["listeners"]]
        for kafka in manifests.of("Kafka")
    )


def redis_forgets_nothing(manifests):
    """What the services ask of a Redis at their start, room to work, and a volume."""
    stores = [it for it in manifests.workloads() if it.labels.get("app.kubernetes.io/component") == "store"]
    if len(stores) != 4:
        yield f"there are {len(stores)} stores, not one for each of the four services"
    for store in stores:
        container = store.pod["containers"][0]
        config = "".join(
            manifests.one("ConfigMap", volume["configMap"]["name"])["data"].get("redis.conf", "")
            for volume in store.pod["volumes"] if "configMap" in volume
        )
        lines = dict(line.split(" ", 1) for line in config.splitlines() if " " in line and not line.startswith("#"))
        for name, value in _REDIS_RULES.items():
            if lines.get(name) != value:
                yield f"{store}: {name} is {lines.get(name)}, not {value}"
        if "include" not in lines:
            yield f"{store}: no password is included"
        memory = {entry["name"]: entry.get("valueFrom", {}) for entry in container["env"]}.get("REDIS_MAXMEMORY", {})
        if "$(REDIS_MAXMEMORY)" not in container["args"] or "resourceFieldRef" not in memory:
            yield f"{store}: its memory has no limit of its own"
        resources = container["resources"]
        if quantity(resources["requests"]["memory"]) > 0.75 * quantity(resources["limits"]["memory"]):
            yield f"{store}: the limit leaves no room beside the data"
        claims = store.spec.get("volumeClaimTemplates", [])
        if len(claims) != 1 or not _mounts(store, claims[0]["metadata"]["name"], "/data"):
            yield f"{store}: its data is on no persistent volume"
        if store.spec.get("replicas") != 1:
            yield f"{store}: more than one Redis would each hold other data"


def _mounts(workload, volume, path):
    mounts = workload.pod["containers"][0].get("volumeMounts", [])
    return any(mount["name"] == volume and mount["mountPath"] == path for mount in mounts)


def brokers_fit_the_services(manifests, repository):
    """The brokers take the services' session timeout, and make no topic by themselves."""
    settings = manifests.shared_settings("kafka-settings")
    plain = {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in settings.items()}
    configs = [plain] if plain else [kafka["spec"]["kafka"]["config"] for kafka in manifests.of("Kafka")]
    if len(configs) != 1:
        yield f"there are {len(configs)} Kafkas, not one"
    for config in configs:
        session_ms = int(repository.default("order-svc", "KAFKA_SESSION_TIMEOUT_MS"))
        if int(config.get("group.min.session.timeout.ms", 6000)) > session_ms:
            yield f"Kafka: refuses the services' session timeout of {session_ms} ms"
        if str(config.get("auto.create.topics.enable", "true")).lower() != "false":
            yield "Kafka: makes topics with whatever partition count it likes"


def topics_are_right(manifests, repository):
    """The resources for topics say the same as the Job that checks them, and name all topics."""
    lanes, topics = manifests.shared_settings("lane-settings"), manifests.shared_settings("topics-settings")
    if int(topics.get("MIN_INSYNC", 1)) > int(topics.get("REPLICATION", 1)):
        yield f"Job topics: of {topics['REPLICATION']} replicas {topics['MIN_INSYNC']} cannot be in sync"
    if not any(Workload(job).name == "topics" for job in manifests.of("Job")):
        yield "no Job makes and checks the topics"
    resources = manifests.of("KafkaTopic")
    if resources and {topic["metadata"]["name"] for topic in resources} != repository.topics():
        yield f"KafkaTopics: not those that the services use, {', '.join(sorted(repository.topics()))}"
    for topic in resources:
        name, spec = topic["metadata"]["name"], topic["spec"]
        config = spec["config"]
        wanted = {
            "partitions": (spec["partitions"], lanes["PARTITIONS"]),
            "replicas": (spec["replicas"], topics["REPLICATION"]),
            "min.insync.replicas": (config.get("min.insync.replicas"), topics["MIN_INSYNC"]),
            "cleanup.policy": (config.get("cleanup.policy"), "delete"),
        }
        if name == "saga.inbox":
            wanted["message.timestamp.type"] = (config.get("message.timestamp.type"), "LogAppendTime")
        for what, (found, expected) in wanted.items():
            if str(found) != str(expected):
                yield f"KafkaTopic {name}: {what} is {found}, not {expected}"


def definitions_are_those_of_the_repository(manifests, repository):
    """The orchestrator gets every definition, and no other."""
    if manifests.shared_settings("definitions") != repository.definitions():
        yield "ConfigMap definitions: not the files of definitions/ (definitions/Kustomization lists them)"


def metrics_exist(manifests, repository):
    """The rule that makes the lane lag known to the autoscaler names a metric that there is."""
    rule = repository.text("k8s/components/lane-lag/adapter-rule.yaml")
    series = re.search(r"seriesQuery: ([a-z_]+)", rule).group(1)
    if series not in repository.metrics():
        yield f"components/lane-lag: {series} is not in docs/metrics.md"
    name = re.search(r"as: ([a-z_]+)", rule).group(1)
    for scaler in manifests.of("HorizontalPodAutoscaler"):
        for metric in scaler["spec"]["metrics"]:
            if metric["type"] == "Pods" and metric["pods"]["metric"]["name"] != name:
                yield f"HorizontalPodAutoscaler {scaler['metadata']['name']}: the adapter's rule makes no such metric"


RULES = (
    names_are_settings,
    references_exist,
    files_are_mounted,
    ports_are_open,
    addresses_exist,
    redis_forgets_nothing,
    brokers_fit_the_services,
    topics_are_right,
    definitions_are_those_of_the_repository,
    metrics_exist,
)
