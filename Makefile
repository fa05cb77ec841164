# Everything a contributor runs. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

GO ?= go
BIN := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# Empty for a build that shares what the tests have compiled.
TRIMPATH ?= -trimpath
SCRIPTS := .ci/run examples/demo/agent examples/demo/demo.sh hack/bench/launch/run hack/bench/run hack/bench/scale/run hack/bench/sidecar/run hack/conformance \
	hack/demo hack/engines hack/mcp-client/install hack/mutations hack/soak hack/test hack/toolchain-image hack/world.sh internal/nolibc/build.sh
LDFLAGS := -s -w -X main.version=$(VERSION)
# Engines are installed and started by root; everything else needs no privilege.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E env PATH="$$PATH")

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

.PHONY: build
build: ## build the programs into bin/, static
	CGO_ENABLED=0 $(GO) build $(TRIMPATH) -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

.PHONY: install
install: build ## install into $(PREFIX)/bin, the man page too
	install -D -m 0755 -t $(DESTDIR)$(or $(PREFIX),/usr/local)/bin $(BIN)/bottle $(BIN)/bottle-probe $(BIN)/bottle-sidecar
	install -D -m 0644 -t $(DESTDIR)$(or $(PREFIX),/usr/local)/share/man/man1 docs/bottle.1

.PHONY: docs
docs: ## write docs/cli.md and the man page anew
	$(GO) generate ./cmd/bottle

.PHONY: demo
demo: build ## install what is missing and run a real bottle
	$(SUDO) hack/demo

.PHONY: test
test: ## install and start all three engines privately, run everything
	$(SUDO) hack/test

.PHONY: unit
unit: ## the tests that need no engine
	$(GO) test ./...

.PHONY: soak
soak: build ## what takes long: 100 kills, every fault and restart, on each engine (hours)
	$(SUDO) env BOTTLE_TEST_KILLS=100 BOTTLE_TEST_FAULTS=all BOTTLE_TEST_RESTARTS=4 BOTTLE_TEST_RACES=20 hack/soak

.PHONY: lint
lint: ## golangci-lint at the pinned version, and shellcheck
	$(GO) build -C hack/tools -o ../../$(BIN)/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	$(BIN)/golangci-lint run ./...
	GOOS=darwin $(BIN)/golangci-lint run ./...
	! command -v shellcheck >/dev/null || shellcheck $(SCRIPTS)

.PHONY: bench
bench: build ## primitives against the engines' own command lines
	$(SUDO) hack/bench/run

.PHONY: bench-launch
bench-launch: ## a full bottle up and down, against the command lines, definitions and the floor
	$(SUDO) hack/bench/launch/run

.PHONY: bench-scale
bench-scale: ## fifty full bottles at once on one engine: ENGINE=docker|podman|containerd
	$(SUDO) hack/bench/scale/run $(or $(ENGINE),containerd)

.PHONY: conformance
conformance: build ## run the suite on all three engines and write the reports and the matrix
	$(SUDO) hack/conformance

.PHONY: mutations
mutations: build ## break each engine's isolation on purpose, and see the suite notice
	$(SUDO) hack/mutations

.PHONY: engines-down
engines-down: ## end the private engines
	$(SUDO) hack/engines down

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)
