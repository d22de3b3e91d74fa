"""pods.py RENDERED: prints a Pod for each pod template, for an API server without controllers to admit or refuse."""

import sys

import yaml
from policy.manifests import Manifests

for workload in Manifests.read(sys.argv[1]).workloads():
    spec = dict(workload.pod)
    # A StatefulSet's controller adds the volume of its claim.
    claims = [claim["metadata"]["name"] for claim in workload.spec.get("volumeClaimTemplates", [])]
    spec["volumes"] = spec.get("volumes", []) + [
        {"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-{workload.name}-0"}} for claim in claims
    ]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{workload.name}-0",
            "namespace": workload.manifest["metadata"]["namespace"],
            "labels": workload.labels,
        },
        "spec": spec,
    }
    print(yaml.dump(pod), end="---\n")
