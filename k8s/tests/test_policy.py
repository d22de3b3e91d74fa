"""Each rule finds the mistake that it is there for: one is planted at a time into an overlay that keeps all rules."""

import copy
import os
import unittest
from functools import cache
from pathlib import Path

from policy import RULES, apply, check
from policy.manifests import Manifests
from policy.repository import Repository

RENDERED = Path(os.environ["RENDERED"])
REPOSITORY = Repository(os.environ["REPOSITORY"])


@cache
def original(overlay):
    return Manifests.read(RENDERED / f"{overlay}.yaml")


class Planted:
    """A copy of an overlay to spoil."""

    def __init__(self, overlay):
        self.manifests = Manifests(copy.deepcopy(original(overlay).documents), overlay)

    def get(self, kind, name):
        return self.manifests.one(kind, name)

    def pod(self, name, kind="Deployment"):
        return self.get(kind, name)["spec"]["template"]["spec"]

    def container(self, name, kind="Deployment"):
        return self.pod(name, kind)["containers"][0]

    def remove(self, kind, name):
        self.manifests.documents.remove(self.get(kind, name))

    def settings(self, name):
        return self.manifests.shared_settings(name)


def set_at(container, path, value):
    *above, last = path.split(".")
    for key in above:
        container = container[int(key) if isinstance(container, list) else key]
    container[int(last) if isinstance(container, list) else last] = value


def drop_at(container, path):
    *above, last = path.split(".")
    for key in above:
        container = container[int(key) if isinstance(container, list) else key]
    del container[int(last) if isinstance(container, list) else last]


def add_port(planted, policy, direction, port):
    planted.get("NetworkPolicy", policy)["spec"][direction][0]["ports"].append({"protocol": "TCP", "port": port})


# What is spoilt in the overlay `minikube`, and a part of what must be said about it.
MINIKUBE = [
    (lambda it: it.get("Namespace", "saga")["metadata"]["labels"].pop("pod-security.kubernetes.io/enforce"),
     "enforce is not restricted"),
    (lambda it: it.get("Namespace", "saga")["metadata"]["labels"].update(
        {"pod-security.kubernetes.io/warn-version": "latest"}), "warn-version is not a fixed version"),
    (lambda it: set_at(it.get("Service", "gateway"), "metadata.namespace", "default"), "is in namespace default"),
    (lambda it: set_at(it.pod("gateway"), "hostNetwork", True), "gateway: hostNetwork"),
    (lambda it: it.pod("gateway").update(volumes=[{"name": "root", "hostPath": {"path": "/"}}]), "kind hostPath"),
    (lambda it: drop_at(it.pod("stock-svc"), "securityContext.runAsNonRoot"), "runAsNonRoot is not true"),
    (lambda it: set_at(it.pod("stock-svc"), "securityContext.runAsUser", 0), "runAsUser is root"),
    (lambda it: drop_at(it.pod("topics", "Job"), "securityContext.seccompProfile"), "Job topics, topics: no seccomp"),
    (lambda it: drop_at(it.container("redis-order", "StatefulSet"), "securityContext.allowPrivilegeEscalation"),
     "redis-order, redis: privileges may be escalated"),
    (lambda it: set_at(it.container("gateway"), "securityContext.privileged", True), "gateway, service: privileged"),
    (lambda it: set_at(it.container("gateway"), "securityContext.capabilities.add", ["NET_ADMIN"]), "not all dropped"),
    (lambda it: drop_at(it.container("kafka", "StatefulSet"), "securityContext.readOnlyRootFilesystem"),
     "kafka, kafka: the root file system can be written"),
    (lambda it: set_at(it.container("gateway"), "ports.0.hostPort", 80), "hostPort"),
    (lambda it: drop_at(it.get("ServiceAccount", "order-svc"), "automountServiceAccountToken"), "mounts its token"),
    (lambda it: drop_at(it.pod("order-svc"), "automountServiceAccountToken"), "order-svc: mounts a token"),
    (lambda it: set_at(it.pod("order-svc"), "serviceAccountName", "gateway"), "shares its ServiceAccount"),
    (lambda it: drop_at(it.pod("order-svc"), "serviceAccountName"), "no ServiceAccount of its own"),
    (lambda it: drop_at(it.pod("kafka", "StatefulSet"), "enableServiceLinks"), "enableServiceLinks"),
    (lambda it: set_at(it.container("gateway"), "image", "saga/gateway"), "saga/gateway has no fixed tag"),
    (lambda it: set_at(it.container("gateway"), "image", "saga/gateway:latest"), "has no fixed tag"),
    (lambda it: drop_at(it.container("orchestrator"), "resources.limits.memory"), "no limit for memory"),
    (lambda it: set_at(it.container("orchestrator"), "resources.requests.cpu", "3"), "more cpu than its limit"),
    (lambda it: drop_at(it.pod("kafka", "StatefulSet"), "volumes.2.emptyDir.sizeLimit"), "has no size limit"),
    (lambda it: it.container("gateway")["env"].append({"name": "REDIS_PASSWORD", "value": "x"}), "is in the manifest"),
    (lambda it: drop_at(it.pod("stock-svc"), "volumes.0.secret.defaultMode"), "everybody in the container can read"),
    (lambda it: set_at(it.pod("stock-svc"), "volumes.0.secret.secretName",
                       it.pod("order-svc")["volumes"][0]["secret"]["secretName"]), "which is not that of redis-stock"),
    (lambda it: drop_at(it.container("gateway"), "livenessProbe"), "gateway: no livenessProbe"),
    (lambda it: drop_at(it.container("redis-stock", "StatefulSet"), "startupProbe"), "redis-stock: no startupProbe"),
    (lambda it: set_at(it.container("gateway"), "readinessProbe.httpGet.path", "/healthz"), "does not ask /readyz"),
    (lambda it: set_at(it.container("gateway"), "startupProbe.failureThreshold", 5), "10 s to start"),
    (lambda it: set_at(it.get("Deployment", "gateway"), "spec.strategy.rollingUpdate.maxUnavailable", 1), "takes replicas"),
    (lambda it: drop_at(it.get("Deployment", "stock-svc"), "spec.minReadySeconds"), "minReadySeconds"),
    (lambda it: drop_at(it.pod("stock-svc"), "topologySpreadConstraints"), "not spread over nodes"),
    (lambda it: drop_at(it.pod("stock-svc"), "topologySpreadConstraints.0.matchLabelKeys"), "does not count its own"),
    (lambda it: it.remove("PodDisruptionBudget", "stock-svc"), "stock-svc: 0 PodDisruptionBudgets"),
    (lambda it: set_at(it.get("PodDisruptionBudget", "stock-svc"), "spec.maxUnavailable", 0), "exactly one to be away"),
    (lambda it: set_at(it.get("HorizontalPodAutoscaler", "gateway"), "spec.scaleTargetRef.name", "x"), "scales nothing"),
    (lambda it: set_at(it.get("HorizontalPodAutoscaler", "gateway"), "spec.minReplicas", 1), "from 1 to 6 replicas"),
    (lambda it: set_at(it.get("HorizontalPodAutoscaler", "gateway"), "spec.metrics", []), "does not look at the CPU"),
    (lambda it: set_at(it.get("Deployment", "gateway"), "spec.replicas", 2), "undoes what the autoscaler decided"),
    (lambda it: set_at(it.pod("payment-svc"), "terminationGracePeriodSeconds", 49), "5 + 40 + 4 s"),
    (lambda it: set_at(it.container("payment-svc"), "lifecycle.preStop", {"exec": {"command": ["sleep", "5"]}}),
     "not a sleep by the kubelet"),
    (lambda it: it.settings("process-settings").update(DRAIN_DEADLINE_S="37"), "cuts off checkouts"),
    (lambda it: it.settings("process-settings").update(DRAIN_DEADLINE_S="31"), "cuts off requests"),
    (lambda it: set_at(it.get("Ingress", "shop"), "metadata.annotations", {}), "waits no longer than the gateway"),
    (lambda it: it.remove("NetworkPolicy", "default-deny"), "no NetworkPolicy denies everything"),
    (lambda it: it.remove("NetworkPolicy", "redis-order"), "order-svc cannot reach redis-order on port 6379"),
    (lambda it: it.remove("NetworkPolicy", "kafka-clients"), "topics cannot reach kafka on port 9092"),
    (lambda it: it.remove("NetworkPolicy", "dns"), "gateway cannot reach dns on port 53"),
    (lambda it: add_port(it, "stock-svc", "ingress", 9090) or add_port(it, "gateway", "egress", 9090),
     "gateway can reach stock-svc on port 9090"),
    (lambda it: set_at(it.get("NetworkPolicy", "metrics"), "spec.ingress.0.from.0.namespaceSelector", {}),
     "someone else can reach orchestrator on port 9090"),
    (lambda it: drop_at(it.get("NetworkPolicy", "gateway-from-ingress"), "spec.ingress.0.from"),
     "someone else can reach gateway on port 8000"),
    (lambda it: it.container("stock-svc")["env"].append({"name": "PARTITION", "value": "1"}), "PARTITION is not a setting"),
    (lambda it: it.settings("gateway-settings").update(KAFKA_BROKERS="kafka:9092"), "not a setting of gateway"),
    (lambda it: it.settings("topics-settings").update(TYPO="1"), "Job topics: nothing uses TYPO"),
    (lambda it: it.settings("topics-settings").pop("REPLICATION") and it.settings("topics-settings").update(
        REPLICATIONS="1"), "$(REPLICATION) in its arguments is not set"),
    (lambda it: it.manifests.documents.append(
        {"kind": "ConfigMap", "metadata": {"name": "left-over", "namespace": "saga"}, "data": {}}), "nobody uses it"),
    (lambda it: set_at(it.container("stock-svc"), "envFrom.0.configMapRef.name", "gone"), "ConfigMap gone does not exist"),
    (lambda it: set_at(it.pod("stock-svc"), "volumes.0.secret.items.0.key", "pasword"), "has no key pasword"),
    (lambda it: drop_at(it.container("stock-svc"), "volumeMounts"), "where nothing is mounted"),
    (lambda it: it.settings("stock-svc-settings").update(LISTEN="0.0.0.0:8081"), "LISTEN is 0.0.0.0:8081"),
    (lambda it: it.settings("process-settings").update(ADMIN_LISTEN="127.0.0.1:9090"), "ADMIN_LISTEN is 127.0.0.1"),
    (lambda it: set_at(it.get("Service", "gateway"), "spec.selector", {"app": "x"}), "selects 0 workloads"),
    (lambda it: set_at(it.get("Service", "gateway"), "spec.ports.0.targetPort", "web"), "its pods have no port web"),
    (lambda it: it.settings("order-svc-settings").update(REDIS="redis-orders:6379"), "which is no Service here"),
    (lambda it: it.settings("gateway-settings").update(STOCK_UPSTREAMS="stock-svc:8080"), "does not fit the Service"),
    (lambda it: set_at(it.get("Ingress", "shop"), "spec.rules.0.http.paths.0.backend.service.name", "x"), "does not exist"),
    (lambda it: it.settings("redis-order").update({"redis.conf": it.settings("redis-order")["redis.conf"].replace(
        "appendfsync always", "appendfsync everysec")}), "appendfsync is everysec, not always"),
    (lambda it: drop_at(it.container("redis-order", "StatefulSet"), "args.2"), "its memory has no limit of its own"),
    (lambda it: set_at(it.container("redis-order", "StatefulSet"), "resources.limits.memory", "600Mi"), "leaves no room"),
    (lambda it: drop_at(it.get("StatefulSet", "redis-order"), "spec.volumeClaimTemplates"), "no persistent volume"),
    (lambda it: set_at(it.get("StatefulSet", "redis-order"), "spec.replicas", 2), "would each hold other data"),
    (lambda it: it.settings("kafka-settings").pop("KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS"), "session timeout of 3000 ms"),
    (lambda it: it.settings("kafka-settings").update(KAFKA_AUTO_CREATE_TOPICS_ENABLE="true"), "makes topics"),
    (lambda it: it.settings("topics-settings").update(MIN_INSYNC="2"), "of 1 replicas 2 cannot be in sync"),
    (lambda it: it.remove("Job", "topics"), "no Job makes and checks the topics"),
    (lambda it: it.settings("definitions").popitem(), "not the files of definitions/"),
]

CLUSTER = [
    (lambda it: set_at(it.container("gateway"), "image", "registry.example.com/saga/gateway:dev"), "a tag that moves"),
    (lambda it: drop_at(it.get("Kafka", "saga"), "spec.kafka.listeners.0.networkPolicyPeers"),
     "someone else can reach kafka on port 9092"),
    (lambda it: set_at(it.get("Kafka", "saga"), "spec.kafka.listeners.0.port", 9094), "cannot reach kafka on port 9092"),
    (lambda it: it.get("Kafka", "saga")["spec"]["kafka"]["config"].pop("group.min.session.timeout.ms"), "session timeout"),
    (lambda it: it.remove("KafkaTopic", "saga.quarantine"), "not those that the services use"),
    (lambda it: set_at(it.get("KafkaTopic", "stock.commands"), "spec.partitions", 50), "partitions is 50, not 100"),
    (lambda it: it.get("KafkaTopic", "saga.inbox")["spec"]["config"].pop("message.timestamp.type"), "not LogAppendTime"),
    (lambda it: it.remove("NetworkPolicy", "otlp"), "gateway cannot reach collector on port 4317"),
]

EVERYTHING = [
    (lambda it: set_at(it.get("HorizontalPodAutoscaler", "stock-svc"), "spec.metrics.1.pods.metric.name", "lag"),
     "the adapter's rule makes no such metric"),
]


class PolicyTest(unittest.TestCase):
    maxDiff = None

    def test_all_overlays_keep_the_rules(self):
        for path in sorted(RENDERED.glob("*.yaml")):
            with self.subTest(path.stem):
                self.assertEqual(list(check(Manifests.read(path), REPOSITORY)), [])

    def test_planted_mistakes_are_found(self):
        broken = set()
        for overlay, cases in (("minikube", MINIKUBE), ("cluster", CLUSTER), ("everything", EVERYTHING)):
            for plant, expected in cases:
                with self.subTest(overlay=overlay, expected=expected):
                    planted = Planted(overlay)
                    plant(planted)
                    findings = {rule: list(apply(rule, planted.manifests, REPOSITORY)) for rule in RULES}
                    everything = [finding for found in findings.values() for finding in found]
                    self.assertTrue(any(expected in finding for finding in everything), everything)
                    broken |= {rule for rule, found in findings.items() if any(expected in it for it in found)}
        self.assertEqual({rule.__name__ for rule in set(RULES) - broken}, set(), "rules that no planted mistake broke")


if __name__ == "__main__":
    unittest.main()
