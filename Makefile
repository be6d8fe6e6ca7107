# All targets need only git, make, a C and C++ compiler and rustup. scripts/need installs other requirements where it can, and
# otherwise names them. One profile (dev) serves demo and test, so they share their build.
.DEFAULT_GOAL := help
.PHONY: help demo kafka test lint figures campaign

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' Makefile

demo: ## run real events through a handler, on a broker inside the process, without further setup
	@scripts/demo

kafka: ## start Apache Kafka with the events of the flights examples for experiments, until Ctrl-C
	@scripts/kafka

test: ## run all tests: the workspace with real brokers, then the handlers natively
	@scripts/test

lint: ## check formatting, clippy, licences, documentation and house rules
	@scripts/lint

figures: ## measure the speed and memory figures of the documentation; slow, and not part of CI
	@cargo build --quiet --release --workspace --bins
	@$${CARGO_TARGET_DIR:-target}/release/figures w1

campaign: ## check transactional delivery under a hundred faults; takes an hour, and not part of CI
	@cargo build --quiet --workspace --bins
	@$${CARGO_TARGET_DIR:-target}/debug/campaign
