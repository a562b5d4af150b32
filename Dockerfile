# syntax=docker/dockerfile:1

# The builder: Rust as in Cargo.toml's rust-version. The slim image has gcc, which aws-lc-sys needs; nothing asks for
# cmake, OpenSSL or libpq.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs openapi.yaml ./
COPY benches benches
COPY migrations migrations
COPY src src
# The page is in the binary, and the client with it.
COPY clients/typescript/dist/index.js clients/typescript/dist/index.js
COPY web web
# Without default features: PostgreSQL and the store of `presignd dev` stay out of the binary.
# The caches outlive the build but are no part of the image, so the binary is copied out of them in the same step. Cargo
# goes by times, and those of another working tree may be older than what the cache was built from: hence the touch.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    touch build.rs src/lib.rs src/main.rs \
    && cargo build --release --locked --no-default-features --bin presignd \
    && cp target/release/presignd /presignd

# The same Debian release as the builder's: the binary is linked to its glibc.
FROM debian:bookworm-slim
# The certificate authorities that the store, the STS, the issuers and the database are verified against.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/presignd/
COPY --from=build /presignd /usr/local/bin/presignd

# The default, loopback, cannot be reached from outside of a container. The environment comes before the file, so
# server.listen in the file has no effect here; another port needs another `presignd probe --url` as well.
ENV PRESIGND_SERVER__LISTEN=0.0.0.0:8080
# For every command: `docker run IMAGE migrate` finds it as `serve` does. Mount the folder there, or name another place. Not
# the single files: an editor that replaces one would not be noticed.
ENV PRESIGND_CONFIG=/etc/presignd/presignd.toml
EXPOSE 8080

# Numeric, so that Kubernetes can see that it is not root (runAsNonRoot). Nothing is written to disk.
USER 10001:10001

# Whether the process is alive, and not whether everything that it needs is: some orchestrators replace what is not healthy,
# and a database that is away would have them replace all of it. Who sends traffic asks /readyz. A container that runs another
# command than serve has nothing to ask: docker run --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["presignd", "probe", "--url", "http://127.0.0.1:8080/healthz"]

# Requests in flight finish and the ledger is written out, for at most server.shutdown_timeout (30s): give the
# orchestrator's grace period more than that.
STOPSIGNAL SIGTERM
ENTRYPOINT ["presignd"]
CMD ["serve"]
