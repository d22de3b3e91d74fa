# All services from one build: a stage that compiles everything once, and a small last stage for each program.
#
#   docker build --target orchestrator -t saga/orchestrator:dev .
#
# Needs BuildKit (the default since Docker 23). Compiled dependencies stay in cache mounts between builds.

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# Copied folders are as young as the copy, and a build script that watches a folder would run again each time.
# Everything in one RUN: what is in a cache mount is not in the layer, so the programs are copied out of it.
RUN --mount=type=cache,id=saga-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=saga-target,target=/src/target,sharing=locked \
    find crates definitions proto gateway orchestrator order-svc payment-svc stock-svc xtask -type d -exec touch -d @0 {} + \
    && cargo build --release --locked --bins \
        -p orchestrator -p order-svc -p stock-svc -p payment-svc -p gateway -p stack -p workspace-hack \
    && mkdir -p /out/bin /out/secrets/orchestrator /out/secrets/order /out/secrets/stock /out/secrets/payment \
    && cd target/release && cp orchestrator order-svc stock-svc payment-svc gateway stack /out/bin/

# What all services have: glibc and zlib of the base image, nobody's user, the ports of containers.
FROM debian:bookworm-slim AS service
ENV LISTEN=0.0.0.0:8080 ADMIN_LISTEN=0.0.0.0:9090 LOG_FORMAT=json
USER 10001:10001
EXPOSE 8080 9090

FROM service AS orchestrator
COPY definitions /etc/saga/definitions
ENV DEFINITIONS_DIR=/etc/saga/definitions
COPY --from=build /out/bin/orchestrator /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/orchestrator"]

FROM service AS order-svc
COPY --from=build /out/bin/order-svc /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/order-svc"]

FROM service AS stock-svc
COPY --from=build /out/bin/stock-svc /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/stock-svc"]

FROM service AS payment-svc
COPY --from=build /out/bin/payment-svc /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/payment-svc"]

FROM service AS gateway
ENV LISTEN=0.0.0.0:8000
EXPOSE 8000
COPY --from=build /out/bin/gateway /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/gateway"]

# Jobs beside the services: topics, passwords.
FROM debian:bookworm-slim AS tools
# A new volume takes over owner and mode of the folder that it is mounted on.
COPY --from=build --chown=10001:10001 /out/secrets /secrets
COPY --from=build /out/bin/stack /usr/local/bin/
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/stack"]
