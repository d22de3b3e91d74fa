"""Who may talk to whom: the policies are worked out for every pair of pods and compared with the flows that exist."""

from .manifests import selects

# Everything outside our namespace that a policy may name, with the labels of its namespace and pods.
OUTSIDE = {
    "ingress controller": ({"kubernetes.io/metadata.name": "ingress-nginx"}, {}),
    "prometheus": ({"kubernetes.io/metadata.name": "monitoring"}, {}),
    "collector": ({"kubernetes.io/metadata.name": "observability"}, {}),
    "dns": ({"kubernetes.io/metadata.name": "kube-system"}, {"k8s-app": "kube-dns"}),
    "someone else": ({"kubernetes.io/metadata.name": "default"}, {"app.kubernetes.io/name": "gateway"}),
}
LANES = ("order-svc", "stock-svc", "payment-svc", "orchestrator")
STORES = {"order-svc": "redis-order", "stock-svc": "redis-stock", "payment-svc": "redis-payment",
          "orchestrator": "redis-orchestrator"}
# Ports on which somebody listens, and one on which nobody should. Not the API server's: its address is no pod's, so the brokers
# of Strimzi may use that port to anywhere.
PORTS = (53, 4317, 6379, 8000, 8080, 9090, 9091, 9092, 22)


def expected_flows(manifests):
    """The flows that exist, as (from, to, port)."""
    flows = {("gateway", service, 8080) for service in ("order-svc", "stock-svc", "payment-svc")}
    flows.add(("order-svc", "stock-svc", 8080))
    flows |= {(service, store, 6379) for service, store in STORES.items()}
    flows |= {(client, "kafka", 9092) for client in (*LANES, "topics")}
    services = ("gateway", *LANES)
    flows |= {(pod, "dns", 53) for pod in (*services, "topics")}
    flows |= {("prometheus", service, 9090) for service in services}
    if manifests.of("Ingress"):
        flows.add(("ingress controller", "gateway", 8000))
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in manifests.shared_settings("process-settings"):
        flows |= {(service, "collector", 4317) for service in services}
    if manifests.of("Kafka"):
        flows |= {("kafka", "dns", 53), ("kafka", "kafka", 9090), ("kafka", "kafka", 9091)}
    return flows


def everything_is_denied_first(manifests):
    """A policy that selects every pod and allows nothing, in both directions."""
    for policy in manifests.of("NetworkPolicy"):
        spec = policy["spec"]
        allows = spec.get("ingress") or spec.get("egress")
        if spec["podSelector"] == {} and set(spec["policyTypes"]) == {"Ingress", "Egress"} and not allows:
            return
    yield "no NetworkPolicy denies everything by default"


def flows_are_those_that_exist(manifests):
    """No flow is missing, and none is open that nobody needs."""
    pods = {workload.name: workload.labels for workload in manifests.workloads()}
    policies = [policy["spec"] for policy in manifests.of("NetworkPolicy")]
    for kafka in manifests.of("Kafka"):
        pods["kafka"], policy = _strimzi_pods(kafka)
        policies.append(policy)
    ends = {name: (None, labels) for name, labels in pods.items()} | OUTSIDE
    rules = {
        (name, direction): _rules(policies, direction, labels)
        for name, labels in pods.items()
        for direction in ("Ingress", "Egress")
    }
    open_flows = {
        (source, target, port)
        for source in ends
        for target in ends
        if source in pods or target in pods
        for port in PORTS
        if (source not in pods or _allow(rules[source, "Egress"], "to", ends[target], port))
        and (target not in pods or _allow(rules[target, "Ingress"], "from", ends[source], port))
    }
    expected = expected_flows(manifests)
    for source, target, port in sorted(expected - open_flows):
        yield f"{source} cannot reach {target} on port {port}"
    for source, target, port in sorted(open_flows - expected):
        yield f"{source} can reach {target} on port {port}, which it need not"


def _rules(policies, direction, labels):
    """The rules that the policies of a pod give it together; None when none selects it, which allows everything."""
    own = [spec for spec in policies if direction in spec["policyTypes"] and selects(spec["podSelector"], labels)]
    return [rule for spec in own for rule in spec.get(direction.lower()) or []] if own else None


def _allow(rules, peers_key, other, port):
    """Whether rules allow `other`, which is (labels of its namespace or None for ours, its own labels)."""
    return rules is None or any(_names_port(rule, port) and _names_peer(rule.get(peers_key), other) for rule in rules)


def _names_port(rule, port):
    return "ports" not in rule or port in [entry.get("port") for entry in rule["ports"]]


def _names_peer(peers, other):
    if peers is None:
        return True
    namespace, labels = other
    for peer in peers:
        if "namespaceSelector" in peer:
            in_namespace = namespace is not None and selects(peer["namespaceSelector"], namespace)
        else:
            in_namespace = namespace is None
        if in_namespace and selects(peer.get("podSelector", {}), labels):
            return True
    return False


def _strimzi_pods(kafka):
    """The pods that the operator will make, and the policy that it will make for them."""
    cluster = kafka["metadata"]["name"]
    labels = {"strimzi.io/cluster": cluster, "strimzi.io/kind": "Kafka", "strimzi.io/name": f"{cluster}-kafka"}
    own = [{"podSelector": {"matchLabels": {"strimzi.io/name": f"{cluster}-kafka"}}}]
    rules = [{"from": own, "ports": [{"port": 9090}, {"port": 9091}]}]
    for listener in kafka["spec"]["kafka"]["listeners"]:
        rule = {"ports": [{"port": listener["port"]}]}
        if "networkPolicyPeers" in listener:
            rule["from"] = listener["networkPolicyPeers"]
        rules.append(rule)
    return labels, {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": rules}


RULES = (everything_is_denied_first, flows_are_those_that_exist)
