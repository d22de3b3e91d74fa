"""Rendered manifests, looked at from the side of their pods."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

# The one in C is ten times as fast, and not everywhere.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

SERVICES = ("gateway", "order-svc", "stock-svc", "payment-svc", "orchestrator")
WORKLOADS = ("Deployment", "StatefulSet", "Job", "DaemonSet", "CronJob")


@dataclass
class Workload:
    """A manifest with a pod template."""

    manifest: dict
    kind: str = field(init=False)
    name: str = field(init=False)

    def __post_init__(self):
        self.kind = self.manifest["kind"]
        self.name = self.manifest["metadata"]["name"]

    def __str__(self):
        return f"{self.kind} {self.name}"

    @property
    def spec(self):
        return self.manifest["spec"]

    @property
    def template(self):
        return self.spec["template"]

    @property
    def pod(self):
        return self.template["spec"]

    @property
    def labels(self):
        return self.template.get("metadata", {}).get("labels", {})

    @property
    def containers(self):
        return self.pod.get("initContainers", []) + self.pod["containers"]

    @property
    def is_service(self):
        """Whether it is one of our five services, which have an admin port and a drain."""
        return self.labels.get("app.kubernetes.io/component") == "service"

    def ports(self):
        """Container ports by name."""
        return {
            port.get("name", ""): port["containerPort"]
            for container in self.containers
            for port in container.get("ports", [])
        }


class Manifests:
    """All that an overlay renders."""

    def __init__(self, documents, overlay=""):
        self.documents = [document for document in documents if document]
        self.overlay = overlay

    @classmethod
    def read(cls, path):
        path = Path(path)
        return cls(yaml.load_all(path.read_text(), _LOADER), path.stem)

    def of(self, kind):
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind, name):
        found = [document for document in self.of(kind) if document["metadata"]["name"] == name]
        return found[0] if found else None

    def workloads(self):
        return [Workload(document) for document in self.documents if document["kind"] in WORKLOADS]

    def services(self):
        return [workload for workload in self.workloads() if workload.is_service]

    def environment(self, container):
        """Environment of a container: name to value, or to None where it comes from elsewhere than a ConfigMap."""
        result = {}
        for source in container.get("envFrom", []):
            name = source.get("configMapRef", {}).get("name")
            config = self.one("ConfigMap", name) if name else None
            result.update((config or {}).get("data", {}))
        for entry in container.get("env", []):
            result[entry["name"]] = entry.get("value")
        return result

    def shared_settings(self, original):
        """Data of a generated ConfigMap by its name without the hash."""
        for document in self.of("ConfigMap"):
            if document["metadata"]["name"].rpartition("-")[0] == original:
                return document["data"]
        return {}


def selects(selector, labels):
    """Whether a label selector matches; an empty one matches everything, a missing one nothing."""
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        value, values = labels.get(expression["key"]), expression.get("values", [])
        matches = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[expression["operator"]]
        if not matches:
            return False
    return True


_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "m": 1e-3}


def quantity(text):
    """A Kubernetes quantity as a number."""
    text = str(text)
    for unit, factor in _UNITS.items():
        if text.endswith(unit):
            return float(text[: -len(unit)]) * factor
    return float(text)
