#!/usr/bin/env bash
# Does the broker of this container answer clients? Asks for the supported versions (request 18, version 0), as every
# client does first. kafka-broker-api-versions.sh asks the same, but starts a Java machine each time.
set -euo pipefail
exec 3<> /dev/tcp/127.0.0.1/9092
printf '\0\0\0\12\0\22\0\0\0\0\0\7\377\377' >&3
# Length, correlation id 7, error code 0.
answer=$(head -c 10 <&3 | od -An -v -tx1 | tr -d ' \n')
[ "${answer:8}" = 000000070000 ] || { echo "no answer that makes sense: $answer"; exit 1; }
echo "answers clients"
