#!/usr/bin/env bash
# Checks the Kubernetes manifests: rendered, against the schemas, against the rules of k8s/tests/policy, and, where there is a real API
# server, applied to it; and the alerts, the dashboard and the runbook. `./dev k8s-test` calls this.
#
#   --build-apiserver   first build kube-apiserver from the Go modules (some 8 minutes of CPU), into .cache
#
# What a machine lacks is skipped with a sentence that says what to install. K8S_TEST_STRICT=1 makes that a failure.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
root=$(readlink -f "$here/../..")
cache=$root/.cache
KUBERNETES_VERSIONS="1.32 1.37"

# shellcheck source=k8s/tests/apiserver.sh
. "$here/apiserver.sh"

usage() { sed -n '2,7s/^# \{0,1\}//p' "$0"; }

fail() { echo "k8s-test: $*" >&2; exit 1; }

skipped=0
skip() {
    echo "k8s-test: skipped $*"
    skipped=$((skipped + 1))
}

finish() {
    [ "$skipped" = 0 ] || [ "${K8S_TEST_STRICT:-0}" != 1 ] || fail "$skipped checks were skipped, and K8S_TEST_STRICT=1 forbids that"
    echo "k8s-test: passed, $skipped skipped"
}

clean_up() {
    apiserver_down
    rm -rf "$work"
}

# A copy, so that the passwords which the test makes are not those of a real installation.
copy_manifests() {
    mkdir "$work/repository"
    cp -r "$root/definitions" "$work/repository/"
    (cd "$root" && tar -cf - --exclude=k8s/overlays/*/secrets k8s) | tar -xf - -C "$work/repository"
    manifests=$work/repository/k8s
}

overlays() { (cd "$manifests/overlays" && echo *); }

check_secrets() {
    local output first
    if output=$(kubectl kustomize "$manifests/overlays/dev" 2>&1); then
        fail "an overlay was rendered without its passwords"
    fi
    [[ $output == *secrets/redis-*/password* ]] || fail "the error does not say which file is missing: $output"
    if output=$("$manifests/deploy" dev 2>&1); then
        fail "k8s/deploy went on without the passwords"
    fi
    [[ $output == *"run k8s/make-secrets dev"* ]] || fail "k8s/deploy does not say what to do about the passwords: $output"
    for overlay in $(overlays); do
        "$manifests/make-secrets" "$overlay" > "$work/make-secrets.log"
    done
    first=$(cat "$manifests"/overlays/dev/secrets/*/password)
    "$manifests/make-secrets" dev > "$work/make-secrets.log"
    [ "$first" = "$(cat "$manifests"/overlays/dev/secrets/*/password)" ] || fail "make-secrets replaced passwords"
    (cd "$root" && git ls-files --error-unmatch 'k8s/overlays/*/secrets/*' > /dev/null 2>&1) && fail "passwords are in git"
    echo "secrets    ok: made once, in files that git ignores; a missing one is named"
}

render() {
    rendered=$work/rendered
    mkdir "$rendered"
    for overlay in $(overlays); do
        kubectl kustomize "$manifests/overlays/$overlay" > "$rendered/$overlay.yaml" || fail "overlay $overlay cannot be rendered"
    done
    kubectl kustomize "$manifests/tests/everything" > "$rendered/everything.yaml" || fail "the optional components cannot be rendered"
    echo "rendered   ok: $(cd "$rendered" && echo *.yaml)"
}

# The tools in Python; false, with a sentence, when they cannot be had.
find_python() {
    command -v python3 > /dev/null || { skip "schemas and rules: install python3"; return 1; }
    local folder=$cache/k8s-python
    python=$folder/bin/python
    cmp -s "$here/requirements.txt" "$folder/requirements.txt" && return 0
    rm -rf "$folder"
    mkdir -p "$cache"
    if command -v uv > /dev/null; then
        uv -q venv "$folder" && uv -q pip install --python "$python" -r "$here/requirements.txt"
    else
        python3 -m venv "$folder" && "$python" -m pip install -q --disable-pip-version-check -r "$here/requirements.txt"
    fi > "$work/python.log" 2>&1 || {
        tail -n 5 "$work/python.log" >&2
        skip "schemas and rules: the packages of k8s/tests/requirements.txt could not be installed (python3-venv, network?)"
        return 1
    }
    cp "$here/requirements.txt" "$folder/requirements.txt"
}

check_schemas() {
    local version unknown
    for version in $KUBERNETES_VERSIONS; do
        "$python" -m kubernetes_validate --strict --quiet -k "$version" "$rendered"/*.yaml > "$work/schemas.log" 2>&1 \
            || { grep ERROR "$work/schemas.log" >&2; fail "the manifests do not fit Kubernetes $version"; }
        # A kind without a schema passes with a warning; only Strimzi's are none of Kubernetes.
        unknown=$(grep "Couldn't find schema" "$work/schemas.log" | grep -v kafka.strimzi.io || true)
        [ -z "$unknown" ] || fail "there is no schema for: $unknown"
    done
    sed 's/minReadySeconds:/minReadySecond:/' "$rendered/dev.yaml" > "$work/misspelt.yaml"
    ! "$python" -m kubernetes_validate --strict --quiet -k "${version}" "$work/misspelt.yaml" > "$work/schemas.log" 2>&1 \
        || fail "a misspelt field passes the schemas"
    echo "schemas    ok: Kubernetes $KUBERNETES_VERSIONS; a misspelt field is refused"
}

check_policy() {
    export RENDERED=$rendered REPOSITORY=$root PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1
    "$python" -m policy --repository "$root" "$rendered"/*.yaml || fail "rules of k8s/tests/policy are broken"
    "$python" -m unittest -q test_policy > "$work/policy.log" 2>&1 || { tail -n 40 "$work/policy.log" >&2; fail "test_policy failed"; }
    echo "rules      ok: all overlays keep them, and every planted mistake is found"
}

# Alerts, dashboard and runbook: names and entries by our rules, expressions by promtool.
check_observability() {
    local folder=$root/k8s/observability
    "$python" -m observability "$root" "$work/queries.yml" || fail "alerts, dashboard or runbook break a rule of k8s/tests/observability"
    "$python" -m unittest -q test_observability > "$work/observability.log" 2>&1 \
        || { tail -n 40 "$work/observability.log" >&2; fail "test_observability failed"; }
    echo "alerts     ok: metrics, labels and runbook entries exist, and every planted mistake is found"
    command -v promtool > /dev/null || { skip "the alerts' tests: install promtool (Debian: apt-get install prometheus)"; return; }
    # Debian builds Prometheus without the service discovery of Kubernetes; the rest of the file is checked.
    sed 's/kubernetes_sd_configs:/static_configs:/; s/- role: pod/- targets: [localhost:9090]/' "$folder/prometheus.yml" > "$work/prometheus.yml"
    cp "$folder/alerts.yml" "$work/alerts.yml"
    promtool check config "$work/prometheus.yml" > "$work/promtool.log" 2>&1 || { cat "$work/promtool.log" >&2; fail "prometheus.yml is wrong"; }
    promtool check rules "$work/queries.yml" > "$work/promtool.log" 2>&1 || { cat "$work/promtool.log" >&2; fail "a query of the dashboard is none"; }
    promtool test rules "$here/observability/alerts_test.yml" > "$work/promtool.log" 2>&1 \
        || { cat "$work/promtool.log" >&2; fail "an alert does not do what its test says"; }
    sed 's#\[../../observability/alerts.yml\]#[alerts.yml]#' "$here/observability/alerts_test.yml" > "$work/alerts_test.yml"
    sed -i 's/(saga_stream_lane_halted) == 1/(saga_stream_lane_halted) == 2/' "$work/alerts.yml"
    ! promtool test rules "$work/alerts_test.yml" > "$work/promtool.log" 2>&1 || fail "an alert that never fires passes its test"
    grep -q 'alertname: LaneHalted' "$work/promtool.log" || { cat "$work/promtool.log" >&2; fail "another alert than the spoilt one fails"; }
    echo "promtool   ok: every alert fires and is silent as its tests say, every query of the dashboard is one"
}

# The collector's configuration by the collector itself; its own distribution for Kubernetes has all parts, too.
check_collector() {
    local collector log=$work/collector.log
    collector=$(command -v otelcol-contrib || command -v otelcol-k8s) || { skip "the collector's configuration: install otelcol-contrib 0.144 or later"; return; }
    export OTLP_BACKEND=localhost:4317
    "$collector" validate --config="$root/k8s/observability/otel-collector.yml" > "$log" 2>&1 || { cat "$log" >&2; fail "otel-collector.yml is wrong"; }
    sed 's/decision_wait:/decision_weight:/' "$root/k8s/observability/otel-collector.yml" > "$work/collector.yml"
    ! "$collector" validate --config="$work/collector.yml" > "$log" 2>&1 || fail "the collector takes a misspelt setting"
    echo "collector  ok: its configuration is one; a misspelt setting is refused"
}

check_strimzi() {
    crds=$cache/strimzi-crds-0.49.1
    if [ ! -d "$crds" ]; then
        { command -v mvn && command -v java; } > /dev/null || { skip "Strimzi's resources: install maven and a Java runtime"; crds=; return; }
        "$here/strimzi/crds.sh" "$crds" || { skip "Strimzi's resources: their definitions could not be made"; crds=; return; }
    fi
    "$python" "$here/custom_resources.py" "$crds" "$rendered"/*.yaml > "$work/strimzi.log" 2>&1 \
        || { cat "$work/strimzi.log" >&2; fail "Strimzi's resources do not fit their definitions"; }
    echo "strimzi    ok: $(cat "$work/strimzi.log"), by the definitions of Strimzi 0.49.1"
}

check_on_apiserver() {
    apiserver_find || { skip "the API server: $apiserver_missing"; return; }
    apiserver_up "$work/apiserver" || fail "the API server did not start; see the lines above"
    local version
    version=$(kubectl version -o json | "$python" -c 'import json, sys; print(json.load(sys.stdin)["serverVersion"]["gitVersion"])')
    [ -z "$crds" ] || kubectl apply --server-side -f "$crds" > /dev/null
    apply_overlays
    admit_pods
    refuse_mistakes
    echo "apiserver  ok: Kubernetes $version: overlays accepted, one deployed, pods admitted under \`restricted\`, mistakes refused"
}

# server_apply LOG OPTION…: applies without a single warning (a pod that its namespace would refuse is one).
server_apply() {
    local log=$1
    shift
    kubectl apply --server-side "$@" > "$log" 2>&1 || { cat "$log" >&2; fail "the API server refuses overlay $overlay"; }
    ! grep -i '^warning' "$log" >&2 || fail "the API server warns about overlay $overlay"
}

apply_overlays() {
    local overlay log=$work/apply.log applied=$work/applied
    mkdir "$applied" "$manifests/tests/elsewhere"
    cp "$rendered/dev.yaml" "$rendered/minikube.yaml" "$applied"
    if [ -n "$crds" ]; then
        # Two overlays for the namespace `saga` cannot be in one API server.
        printf 'namespace: saga-cluster\nresources: [../../overlays/cluster]\n' > "$manifests/tests/elsewhere/kustomization.yaml"
        kubectl kustomize "$manifests/tests/elsewhere" > "$applied/cluster.yaml"
    else
        skip "overlay cluster on the API server: it needs Strimzi's definitions"
    fi
    for overlay in $(cd "$applied" && echo *); do
        # The namespace must be there before anything in it can be tried.
        first_namespace < "$applied/$overlay" | kubectl apply --server-side -f - > /dev/null
        server_apply "$log" --dry-run=server -f "$applied/$overlay"
    done
    # For good, and once more as k8s/deploy does it; nothing becomes ready without a controller, so it has to say that.
    overlay=minikube.yaml
    server_apply "$log" -f "$applied/$overlay"
    ! "$manifests/deploy" minikube 1 > "$log" 2>&1 || fail "k8s/deploy says that something is ready on an API server without controllers"
    grep -q 'not ready in time' "$log" || { cat "$log" >&2; fail "k8s/deploy did not come to waiting"; }
}

first_namespace() {
    "$python" -c 'import sys, yaml; print(yaml.dump(next(it for it in yaml.safe_load_all(sys.stdin) if it["kind"] == "Namespace")))'
}

# No controller runs here that would make pods of the templates, so they are handed in as pods: the API server decides on each, by the
# label of the namespace.
admit_pods() {
    "$python" "$here/pods.py" "$rendered/minikube.yaml" > "$work/pods.yaml"
    kubectl create --dry-run=server -f "$work/pods.yaml" > "$work/pods.log" 2>&1 || { cat "$work/pods.log" >&2; fail "a pod is refused"; }
    sed 's/allowPrivilegeEscalation: false/allowPrivilegeEscalation: true/' "$work/pods.yaml" > "$work/bad-pods.yaml"
    ! kubectl create --dry-run=server -f "$work/bad-pods.yaml" > "$work/pods.log" 2>&1 || fail "pods that may escalate privileges are admitted"
    [ "$(grep -c 'violates PodSecurity "restricted' "$work/pods.log")" = "$(grep -c '^kind: Pod' "$work/pods.yaml")" ] \
        || { cat "$work/pods.log" >&2; fail "not every pod that may escalate privileges is refused for that"; }
}

refuse_mistakes() {
    ! kubectl apply --server-side --dry-run=server -f "$work/misspelt.yaml" > "$work/apply.log" 2>&1 || fail "a misspelt field is applied"
    grep -q 'minReadySecond' "$work/apply.log" || { cat "$work/apply.log" >&2; fail "the refusal does not name the misspelt field"; }
    # What docs/deploy.md says about the Job: it is not changed but made anew.
    sed 's/backoffLimit: 10/backoffLimit: 11/; s#saga/tools:dev#saga/tools:next#' "$rendered/minikube.yaml" > "$work/next.yaml"
    ! kubectl apply --server-side -f "$work/next.yaml" > "$work/apply.log" 2>&1 || fail "a changed Job is applied over the old one"
    grep -q 'Job.*topics.*immutable' "$work/apply.log" || { cat "$work/apply.log" >&2; fail "something else than the Job is refused"; }
    kubectl -n saga delete job topics > /dev/null
    local overlay=minikube
    server_apply "$work/apply.log" -f "$work/next.yaml"
}

case ${1:-} in
    '') ;;
    --build-apiserver) apiserver_build ;;
    *) usage >&2; exit 2 ;;
esac

command -v kubectl > /dev/null || { skip "everything: install kubectl 1.32 or later"; finish; exit 0; }
work=$(mktemp -d)
trap clean_up EXIT
# Whatever goes wrong here, no real cluster hears of it.
export KUBECONFIG=$work/no-cluster KUBECACHEDIR=$work/kube-cache
copy_manifests
check_secrets
render
if find_python; then
    check_schemas
    check_policy
    check_observability
    check_collector
    check_strimzi
    check_on_apiserver
fi
finish
