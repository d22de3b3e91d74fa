#!/usr/bin/env bash
# crds.sh FOLDER: makes the CustomResourceDefinitions of Kafka, KafkaNodePool and KafkaTopic in FOLDER, from Strimzi's own model.
# Strimzi publishes them as YAML only beside its releases; the jars are what Maven Central has.
set -euo pipefail
out=$(realpath -m "${1:?a folder}")
cd "$(dirname "$(readlink -f "$0")")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mvn -q -B --no-transfer-progress -Dstyle.color=never dependency:copy-dependencies \
    -DoutputDirectory="$work/libs" -DincludeScope=runtime > "$work/maven.log" 2>&1 \
    || { tail -n 5 "$work/maven.log" >&2; echo "crds.sh: Maven could not fetch Strimzi's jars; is the network there?" >&2; exit 1; }
mkdir "$work/generator" "$work/crds"
mv "$work"/libs/crd-generator-*.jar "$work/generator"

model=io.strimzi.api.kafka.model
java -cp "$work/libs/*:$work/generator/*" io.strimzi.crdgenerator.CrdGenerator --target-kube 1.25+ \
    "$model.kafka.Kafka=$work/crds/kafka.json" \
    "$model.nodepool.KafkaNodePool=$work/crds/kafkanodepool.json" \
    "$model.topic.KafkaTopic=$work/crds/kafkatopic.json" > "$work/java.log" 2>&1 \
    || { tail -n 5 "$work/java.log" >&2; echo "crds.sh: the generator failed" >&2; exit 1; }
rm -rf "$out"
mkdir -p "$(dirname "$out")"
mv "$work/crds" "$out"
