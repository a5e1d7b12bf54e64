# syntax=docker/dockerfile:1
# One static binary on an empty base. glibc is linked in (crt-static): it resolves names without any file of the base.

FROM rust:1.95-bookworm AS build
# aws-lc compiles from C.
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# The target is named so that the flags do not reach build scripts and proc macros, which must stay dynamic.
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --bin azblob-csi --target "$target" \
    && install -D -m 0755 "target/$target/release/azblob-csi" /image/azblob-csi \
    && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && mkdir -p -m 1777 /image/tmp

FROM scratch
COPY --from=build /image/ /
# Where rustls looks for roots: the image has no other place.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
ENTRYPOINT ["/azblob-csi"]
