# Everything a person or a machine does with this tree, one word each: `make help` lists the words.
# The tools come pinned (tools/go.mod), what is made lies in folders that git ignores, and nothing is installed on the machine
# but the Debian packages that the tests need (scripts/packages.sh says which, and that it does).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The standard library is a dependency like any other, so its patched version is pinned too: Go fetches it as a module. Where
# that cannot be had the machine's own Go is used, and `make vuln` says what that one lacks.
PATCHED := go1.26.10
export GOTOOLCHAIN := $(shell GOTOOLCHAIN=$(PATCHED) go version >/dev/null 2>&1 && echo $(PATCHED) || echo local)

TOOL  := go tool -modfile=tools/go.mod
STAGE := scripts/stage.sh

.PHONY: help build build-chaos run demo test test-unit test-opencode test-e2e test-leak test-faults race fuzz bench lint format lint-cross vuln model packages clean

help: ## list these words
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the programs into bin/: static, stripped, each under 35 MB
	@scripts/build.sh

build-chaos: ## build the same with the clock offset of the fault tests into bin/chaos/
	@scripts/build.sh chaos

run: build build/demo ## start broker, agent and OpenCode on this machine and show a link
	@OPENCODE_BIN=$$(scripts/opencode.sh); export OPENCODE_BIN; exec build/demo run

demo: build build/demo ## the whole main job, driven through the built programs, then exit
	@OPENCODE_BIN=$$(scripts/opencode.sh); export OPENCODE_BIN; exec build/demo

.PHONY: build/demo
build/demo:
	@go build -o build/ ./e2e/demo ./e2e/scriptedmodel

test: ## everything: unit, model, real OpenCode, end to end, fuzz, faults
	@$(MAKE) test-unit model test-opencode test-e2e fuzz test-faults

test-unit: packages ## the tests of all packages under the race detector
	@$(STAGE) unit go test -race -timeout 10m ./...

race: test-unit ## another word for test-unit

test-opencode: ## the tests that drive a real OpenCode
	@OPENCODE_BIN=$$(scripts/opencode.sh); export OPENCODE_BIN; \
	  $(STAGE) opencode go test -tags opencode -timeout 8m ./internal/opencode/...

test-e2e: packages build build-chaos build/demo ## the built programs as processes: the main job, kills, a hostile broker
	@OPENCODE_BIN=$$(scripts/opencode.sh); export OPENCODE_BIN; \
	  $(STAGE) e2e go test -tags e2e -timeout 10m $$(go list -tags e2e ./e2e/... | grep -v /e2e/faults)

test-leak: ## ten thousand meetings of broker, agents and surfaces: not steady enough yet to be part of `make test`
	@$(STAGE) leak go test -tags leak -v -timeout 10m ./e2e/leak

test-faults: packages build ## full disks, failing fsyncs, lossy networks: Linux, as root
	@$(STAGE) faults go test -tags faults -timeout 5m ./e2e/faults/...

fuzz: ## every fuzzer for its share of FUZZ_SECONDS (60)
	@$(STAGE) fuzz scripts/fuzz.sh

model: ## explore every interleaving of the mailbox's state table
	@$(STAGE) model go run ./internal/mailbox/model/cmd

bench: ## measure this machine: tap to execution, commands a second, memory of idle desktops, reconnects
	@go -C bench run . $(ARGS)

lint: ## formatting, static checks, and the other platforms compile
	@$(STAGE) format scripts/format.sh
	@$(STAGE) golangci $(TOOL) golangci-lint run ./...
	@$(MAKE) lint-cross

format: ## let gofumpt rewrite what it would change
	@scripts/format.sh --write

lint-cross: ## go vet for linux/arm64, macOS and Windows, and for the chaos build
	@$(STAGE) cross scripts/cross.sh

vuln: ## look every dependency up in the pinned vulnerability data
	@$(STAGE) vuln scripts/vuln.sh

packages: ## install the Debian packages that the tests need, where not found
	@scripts/packages.sh gcc libc6-dev strace iproute2 nftables

clean: ## remove everything that was made here (whatever git ignores)
	@git clean -fdqX && echo "removed all that git ignores"
