#!/usr/bin/env bash
# Makes the pictures of traces in this folder from a stack that really runs:
#   *.svg   drawn from the exported spans
#   *.png   what a Zipkin server shows of the same spans (needs Maven, Java, curl and Chromium; left out without them)
set -euo pipefail
cd "$(dirname "$0")/../.."

ZIPKIN_VERSION=3.5.1
OUT=target/pictures
ZIPKIN_PORT=${ZIPKIN_PORT:-19411}

./dev setup
cargo build --workspace --locked
[ -n "${KAFKA_LIBS:-}" ] || export KAFKA_LIBS=$PWD/.cache/kafka-4.1.0/libs
cargo build --package stack --package workspace-hack --example trace_picture --locked
STACK_PROGRAMS=$PWD/target/debug target/debug/examples/trace_picture "$OUT"
cp "$OUT"/*.svg docs/pictures/

chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$chromium" ] || ! command -v mvn > /dev/null; then
    echo "no picture from Zipkin: it needs the packages chromium and maven"
    exit 0
fi
jar=.cache/zipkin/zipkin-server-$ZIPKIN_VERSION-exec.jar
if [ ! -e "$jar" ]; then
    mkdir -p .cache/zipkin
    mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
        -Dartifact=io.zipkin:zipkin-server:$ZIPKIN_VERSION:jar:exec -DoutputDirectory=.cache/zipkin
fi
java -Xmx300m -jar "$jar" --server.port="$ZIPKIN_PORT" > "$OUT/zipkin.log" 2>&1 &
zipkin=$!
trap 'kill $zipkin' EXIT
url=http://127.0.0.1:$ZIPKIN_PORT
tries=0
until curl -fsS "$url/health" > /dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 120 ] || { echo "Zipkin did not start, see $OUT/zipkin.log" >&2; exit 1; }
    sleep 0.5
done
for spans in "$OUT"/*.zipkin.json; do
    name=$(basename "$spans" .zipkin.json)
    trace=$(sed -n 's/.*"traceId": "\([0-9a-f]*\)".*/\1/p' "$spans" | head -n 1)
    curl -fsS -H 'Content-Type: application/json' --data-binary "@$spans" "$url/api/v2/spans"
    tries=0
    until curl -fsS "$url/api/v2/trace/$trace" > /dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || { echo "Zipkin does not know trace $trace" >&2; exit 1; }
        sleep 0.5
    done
    "$chromium" --headless=new --no-sandbox --disable-gpu --hide-scrollbars --window-size=1500,1050 \
        --virtual-time-budget=15000 --screenshot="docs/pictures/$name.png" "$url/zipkin/traces/$trace" \
        > "$OUT/chromium.log" 2>&1
    echo "docs/pictures/$name.png"
done
