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

.PHONY: lint
lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings

.PHONY: docs
docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

.PHONY: test
test: ## every test but those of `make e2e`
	$(CARGO) test --locked

.PHONY: e2e
e2e: ## what needs tools from outside: runs the README's commands
	scripts/need curl
	$(CARGO) test --locked --test it -- --ignored --nocapture e2e::

.PHONY: demo
demo: ## the proxy in front of a simulated gateway, on 127.0.0.1:8080
	$(CARGO) run --locked --release -- demo

.PHONY: bench
bench: ## what a hit costs, beside bare hyper, nginx, HAProxy and Varnish; more: make bench ARGS=--help
	$(CARGO) bench --locked --bench hits -- $(ARGS)

.PHONY: soak-model
soak-model: ## random histories of the whole lookup path, other ones every time; more: make soak-model MODEL_HISTORIES=1000000
	MODEL_HISTORIES=$(or $(MODEL_HISTORIES),100000) $(CARGO) test --locked --release --test it -- --ignored --nocapture model::
