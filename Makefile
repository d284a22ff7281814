# Everything sets itself up first: tests/deps/install.sh does nothing where nothing is missing.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: deps build test test-deploy torture soak fuzz lint demo bench check

deps:
	tests/deps/install.sh build test

# What it is built of is in the program, for `cargo audit bin` and the like.
build:
	tests/deps/install.sh release
	$(CARGO) auditable build --release --locked

test: deps
	$(CARGO) test --workspace --locked
	$(CARGO) test --locked --features otlp --test otlp
	BEARERD=$(TARGET)/debug/bearerd tests/clients/.venv/bin/pytest -q tests/clients

# The stores under fire, with N times as many kills as `make test`; prints what came of them.
torture: deps
	BEARERD_TORTURE=$(or $(N),20) $(CARGO) test --locked --test integration -- \
		durability::kills shared::storm --nocapture --test-threads 1
	BEARERD_TORTURE=$(or $(N),20) $(CARGO) test --locked --lib -- \
		protocol::tests --nocapture

# Under load and in trouble for SECONDS, with an eye on every answer, on memory and descriptors.
soak:
	tests/deps/install.sh build
	$(CARGO) build --locked --profile quick -p bearerd -p bearerd-emulator --bin bearerd --example soak
	$(TARGET)/quick/examples/soak $(TARGET)/quick/bearerd $(or $(SECONDS),1200)

# Every parser, SECONDS each; wants a nightly compiler.
fuzz:
	tests/deps/install.sh fuzz
	tests/fuzz/run.sh $(or $(SECONDS),600)

# deploy/, on real parts: the image, pods under podman (as root), charts, manifests, alerts, dashboard.
# The programs are linked statically, as in the images.
STATIC := $(shell uname -m)-unknown-linux-gnu
test-deploy:
	tests/deps/install.sh deploy
	RUSTFLAGS="-C target-feature=+crt-static" \
		$(CARGO) auditable build --locked --profile quick --target $(STATIC) \
		--package bearerd --bin bearerd --package bearerd-injector --bin bearerd-injector
	$(CARGO) build --locked --package bearerd-emulator --example kubernetes
	BEARERD=$(TARGET)/$(STATIC)/quick/bearerd \
		BEARERD_API_SERVER=$(TARGET)/debug/examples/kubernetes \
		INJECTOR=$(TARGET)/$(STATIC)/quick/bearerd-injector \
		tests/deploy/.venv/bin/pytest -q tests/deploy

lint:
	tests/deps/install.sh build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy --all-targets --locked --features otlp -- -D warnings

check: lint test

# The real program between an emulated identity provider and API; see README.md.
demo:
	@tests/deps/install.sh build
	@$(CARGO) build --quiet --locked --profile quick --bin bearerd
	@$(CARGO) build --quiet --locked --package bearerd-emulator --example demo
	@exec $(TARGET)/debug/examples/demo $(TARGET)/quick/bearerd

# One table, and the chart of the README; `make bench ONLY=small,idle` for some of the works.
bench:
	tests/deps/install.sh bench
	$(CARGO) bench --locked --profile quick --bench injection
	$(CARGO) build --locked --profile quick --example pace --example swapping
	$(CARGO) build --release --locked
	benches/peers/peers.py --svg benches/cost.svg $(if $(ONLY),--only $(ONLY))
