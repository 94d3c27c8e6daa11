# avatar-proxy in an image of its own: the program, what it is linked with, and the authorities by whose word servers are believed.
#
#   docker build --tag avatar-proxy .
#   docker run --read-only --volume avatars:/data --publish 127.0.0.1:8080:8080 \
#       --env AVATAR_PROXY_LISTEN=0.0.0.0:8080 --env AVATAR_PROXY_AUTH_FILE=/run/secrets/auth \
#       --env AVATAR_PROXY_GATEWAY_URL=http://gateway:3000 ... avatar-proxy
#
# Settings come in variables, so that the health check, which reads them too, knows where to ask.

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin avatar-proxy && cp target/release/avatar-proxy /
# What the program needs to run, and nothing else. Whoever it runs as may write to /data, and to /tmp if that is mounted.
RUN mkdir --parents /image/data /image/tmp && cp --parents --dereference \
    /avatar-proxy /etc/ssl/certs/ca-certificates.crt $(ldd /avatar-proxy | grep --only-matching '/[^ ]*') /image && \
    strip /image/avatar-proxy && chown 65532:65532 /image/data /image/tmp

FROM scratch
COPY --from=build /image /
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 8080 9100
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["/avatar-proxy", "health"]
ENTRYPOINT ["/avatar-proxy"]
CMD ["serve"]
