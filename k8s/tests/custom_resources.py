"""custom_resources.py CRDS RENDERED…: checks custom resources against their CustomResourceDefinitions, unknown fields included.

What an API server does with the same definitions, for machines that have none. Exit code 1 if anything is wrong.
"""

import copy
import json
import sys
from pathlib import Path

import jsonschema
from policy.manifests import Manifests


def closed(schema):
    """The schema with every object that lists its fields closed to others, as an API server takes it for `Strict`."""
    if isinstance(schema, list):
        return [closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    lists_fields = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if lists_fields and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


def schemas(folder):
    """Closed schemas by (group/version, kind)."""
    found = {}
    for path in Path(folder).glob("*.json"):
        spec = json.loads(path.read_text())["spec"]
        for version in spec["versions"]:
            schema = copy.deepcopy(version["schema"]["openAPIV3Schema"])
            # The API server knows the fields of metadata by itself.
            schema["properties"]["metadata"] = {}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = closed(schema)
    return found


def check(documents, known):
    """Findings; resources of groups that no definition names are not looked at."""
    groups = {version.partition("/")[0] for version, _ in known}
    for document in documents:
        key = document["apiVersion"], document["kind"]
        if document["apiVersion"].partition("/")[0] not in groups:
            continue
        where = f"{document['kind']} {document['metadata']['name']}"
        if key not in known:
            yield f"{where}: there is no {document['kind']} in {document['apiVersion']}"
            continue
        for error in jsonschema.Draft4Validator(known[key]).iter_errors(document):
            yield f"{where}: {'.'.join(str(part) for part in error.path)}: {error.message}"


def self_test(documents, known):
    """Findings of this program must change when a mistake is planted."""
    kafka = next(document for document in copy.deepcopy(documents) if document["kind"] == "Kafka")
    kafka["spec"]["kafka"]["listener"] = kafka["spec"]["kafka"].pop("listeners")
    findings = list(check([kafka], known))
    if not any("'listener' was unexpected" in it for it in findings) or not any("required" in it for it in findings):
        raise SystemExit("custom_resources: a misspelt field was not found")


def main():
    known = schemas(sys.argv[1])
    broken, looked_at = 0, 0
    for path in sys.argv[2:]:
        manifests = Manifests.read(path)
        for finding in check(manifests.documents, known):
            print(f"{manifests.overlay}: {finding}")
            broken += 1
        looked_at += sum((document["apiVersion"], document["kind"]) in known for document in manifests.documents)
        if manifests.of("Kafka"):
            self_test(manifests.documents, known)
    print(f"{looked_at} custom resources looked at")
    return 1 if broken or not looked_at else 0


sys.exit(main())
