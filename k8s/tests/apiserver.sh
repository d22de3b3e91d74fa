# A real Kubernetes API server on loopback, for k8s/tests/run.sh: etcd and kube-apiserver, no controllers, no nodes. Objects are checked,
# defaulted, admitted and stored; nothing runs.
#
# KUBE_APISERVER and ETCD name the programs; else they are looked for in .cache and in PATH.
# Read by run.sh, which has `set -e`, sets here and cache, and shows apiserver_missing.
# shellcheck shell=bash disable=SC2034,SC2154

# The oldest release that the manifests are for.
APISERVER_VERSION=1.32.13

# Builds the server from its Go modules; apiserver/go.mod and go.sum say which, to the byte.
apiserver_build() {
    command -v go > /dev/null || fail "building the API server needs Go 1.24 or later"
    local target=$cache/kube/kube-apiserver-$APISERVER_VERSION package=k8s.io/component-base/version
    [ ! -x "$target" ] || { echo "apiserver  ok: $target is there"; return; }
    mkdir -p "$cache/kube"
    echo "building kube-apiserver $APISERVER_VERSION (some 8 minutes of CPU) …"
    (
        cd "$here/apiserver" || exit
        CGO_ENABLED=0 nice -n 10 go build -mod=readonly -trimpath -o "$target" \
            -ldflags "-s -w -X $package.gitVersion=v$APISERVER_VERSION -X $package.gitMajor=1 -X $package.gitMinor=32" \
            k8s.io/kubernetes/cmd/kube-apiserver
    )
}

# Sets apiserver_program and etcd_program, or says in apiserver_missing what is not there.
apiserver_find() {
    apiserver_program=${KUBE_APISERVER:-$cache/kube/kube-apiserver-$APISERVER_VERSION}
    [ -x "$apiserver_program" ] || apiserver_program=$(command -v kube-apiserver) || {
        apiserver_missing="set KUBE_APISERVER to a kube-apiserver, or run ./dev k8s-test --build-apiserver once"
        return 1
    }
    etcd_program=$(command -v "${ETCD:-etcd}") || {
        apiserver_missing="set ETCD to an etcd, or install one (Debian: apt-get install etcd-server)"
        return 1
    }
}

# A port of loopback that is free now, below those that the kernel gives to clients.
apiserver_port() {
    python3 -c '
import random, socket
while True:
    port = random.randint(20000, 31999)
    with socket.socket() as it:
        if it.connect_ex(("127.0.0.1", port)) != 0:
            print(port)
            break'
}

# apiserver_up FOLDER: starts both, with all their state in FOLDER, and exports KUBECONFIG.
apiserver_up() {
    local folder=$1 etcd_port peer_port port token
    mkdir -p "$folder"
    etcd_port=$(apiserver_port) peer_port=$(apiserver_port) port=$(apiserver_port)
    token=$(head -c 24 /dev/urandom | base64 | tr -dc 'A-Za-z0-9')
    echo "$token,tester,tester,system:masters" > "$folder/tokens.csv"
    openssl genrsa -out "$folder/accounts.key" 2048 2> /dev/null
    "$etcd_program" --data-dir "$folder/etcd" --listen-client-urls "http://127.0.0.1:$etcd_port" \
        --advertise-client-urls "http://127.0.0.1:$etcd_port" --listen-peer-urls "http://127.0.0.1:$peer_port" \
        > "$folder/etcd.log" 2>&1 < /dev/null &
    apiserver_pids=$!
    "$apiserver_program" --etcd-servers "http://127.0.0.1:$etcd_port" --bind-address 127.0.0.1 --secure-port "$port" \
        --cert-dir "$folder/certificates" --token-auth-file "$folder/tokens.csv" --authorization-mode RBAC \
        --service-cluster-ip-range 10.96.0.0/16 --service-account-issuer https://kubernetes.default.svc \
        --service-account-key-file "$folder/accounts.key" --service-account-signing-key-file "$folder/accounts.key" \
        > "$folder/apiserver.log" 2>&1 < /dev/null &
    apiserver_pids="$apiserver_pids $!"
    cat > "$folder/kubeconfig" <<KUBECONFIG
apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: tester}}]
clusters: [{name: test, cluster: {server: "https://127.0.0.1:$port", insecure-skip-tls-verify: true}}]
users: [{name: tester, user: {token: "$token"}}]
KUBECONFIG
    export KUBECONFIG=$folder/kubeconfig
    local end=$((SECONDS + 180)) pid
    until kubectl get --raw /readyz > /dev/null 2>&1; do
        for pid in $apiserver_pids; do
            kill -0 "$pid" 2> /dev/null || { tail -n 5 "$folder/etcd.log" "$folder/apiserver.log" >&2; return 1; }
        done
        [ "$SECONDS" -lt "$end" ] || { tail -n 5 "$folder/apiserver.log" >&2; return 1; }
        sleep 0.5
    done
}

# Ends what was started here, if anything was.
apiserver_down() {
    local pid
    for pid in ${apiserver_pids:-}; do
        kill "$pid" 2> /dev/null || true
        wait "$pid" 2> /dev/null || true
    done
    apiserver_pids=
}
