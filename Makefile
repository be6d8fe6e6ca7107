# Everything needs only git, make, a C and C++ compiler and rustup: scripts/need adds what else is missing where it
# can, and otherwise says what to install. One profile (dev) serves demo and test, so they share what they build.
.DEFAULT_GOAL := help
.PHONY: help demo kafka test lint figures

help: ## what there is to make
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' Makefile

demo: ## see real events go through a handler: no broker, nothing to install first
	@scripts/demo

kafka: ## start an Apache Kafka with the example's events in it, to try instances on, until Ctrl-C
	@scripts/kafka

test: ## all tests: the workspace with its real brokers, then the handlers natively
	@scripts/test

lint: ## formatting, clippy, licences, documentation, and the rules that no tool knows
	@scripts/lint

figures: ## measure what the documents say of speed and memory; takes long, and CI does not run it
	@cargo build --quiet --release --workspace --bins
	@$${CARGO_TARGET_DIR:-target}/release/figures w1
