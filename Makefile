# mlrails: the commands people and CI use. `make image` and `make test` are all a fresh machine with cargo needs.

MLRAILS = target/release/mlrails
CHURN = fixtures/churn

.PHONY: image build setup test test-long bench bench-serving lint clean

# Sets up and runs the main job: an OCI image of the example project, as a layout in fixtures/churn/dist/churn.
image: build
	$(MLRAILS) --project $(CHURN) lock
	$(MLRAILS) --project $(CHURN) image

build:
	cargo build --release --locked

# Everything the tests compare against and serve on loopback: real peers and real packages. Starts nothing.
setup:
	tests/setup

# Runs setup first where it may install things; elsewhere the run ends by naming what it did not cover.
test:
	@if [ "$$(id -u)" = 0 ] && [ -f /etc/debian_version ]; then tests/setup; fi
	@rm -f target/tmp/not-covered
	@cargo test --locked --no-fail-fast; status=$$?; sort -u target/tmp/not-covered 2>/dev/null; exit $$status

# The expensive ones too.
test-long:
	MLRAILS_LONG=1 $(MAKE) test

bench: build
	benches/run

bench-serving: build
	benches/serving/run

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
