# Everything a contributor runs. `make help` prints the lines marked with two hashes.

GO       ?= go
FUZZTIME ?= 60s
CHAOSTIME ?= 10m
CHAOSDIR ?= $(or $(TMPDIR),/tmp)/shardpress-chaos
BENCH    ?= .
GOLANGCI := $(GO) tool -modfile=tools/lint/go.mod golangci-lint

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/shardpress
	$(GO) build -trimpath -o bin/shardpress ./cmd/shardpress

.PHONY: test
test: ## run the whole test suite (minutes); `go test -short ./...` is the quick one
	$(GO) test ./...

.PHONY: race
race: ## run the short tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short ./...

.PHONY: chaos
chaos: ## kill a fleet's processes by one seeded schedule after another for CHAOSTIME (10m); of one that fails, logs go to CHAOSDIR
	@mkdir -p '$(CHAOSDIR)'
	$(GO) test -v -timeout 0 -run '^TestChaos$$' ./cmd/shardpress -artifacts -outputdir '$(CHAOSDIR)' -chaos.time $(CHAOSTIME)

.PHONY: lint
lint: ## run golangci-lint; the first run builds it, which takes minutes
	$(GOLANGCI) run

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (default 60s) each
	@grep -rEo --include='*_test.go' --exclude-dir='.?*' '^func Fuzz[A-Za-z0-9_]+' . | sort | while IFS=: read -r file target; do \
	  target="$${target#func }"; package="./$$(dirname "$${file#./}")"; \
	  echo "fuzz $$package $$target for $(FUZZTIME)"; \
	  $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s "$$package"; \
	done

.PHONY: bench
bench: ## run the benchmarks; BENCH=regexp chooses
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

.PHONY: cover
cover: ## write coverage.out and coverage.html and print the total
	$(GO) test -short -coverpkg=./... -coverprofile=coverage.out ./...
	$(GO) tool cover -html=coverage.out -o coverage.html
	@$(GO) tool cover -func=coverage.out | tail -n 1

.PHONY: vet
vet: ## run go vet
	$(GO) vet ./...

.PHONY: fmt-check
fmt-check: ## fail when a file is not in gofmt's form
	@files="$$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 -r gofmt -l)"; \
	if [ -n "$$files" ]; then echo "not in gofmt's form, run gofmt -w on:"; echo "$$files"; exit 1; fi

.PHONY: tidy-check
tidy-check: ## fail when go.mod or go.sum would change under go mod tidy
	$(GO) mod tidy -diff
	cd tools/lint && $(GO) mod tidy -diff
	cd tools/versitygw && $(GO) mod tidy -diff

.PHONY: verify-generated
verify-generated: ## run go generate and fail when a generated file changes
	@before="$$(mktemp)"; after="$$(mktemp)"; trap 'rm -f "$$before" "$$after"' EXIT; \
	sums() { git ls-files -z --cached --others --exclude-standard | xargs -0 sha256sum --; }; \
	sums > "$$before"; $(GO) generate ./...; sums > "$$after"; \
	diff "$$before" "$$after" || { echo "generated files are stale: run go generate ./... and commit"; exit 1; }

.PHONY: ci
ci: vet fmt-check tidy-check lint test race ## all that a change must pass

.PHONY: interop
interop: build ## load results in transformers and compare weights bit for bit (needs Python 3.11)
	tools/interop/run

.PHONY: interop-tokenizers
interop-tokenizers: ## compare token ids with the library tokenizers on 100,000 texts (after `make interop` has made the environment; minutes)
	$(GO) build -o bin/tokenids ./tools/interop/tokenids
	tools/interop/.venv/bin/python tools/interop/tokenids.py bin/tokenids

.PHONY: clean
clean: ## remove what the targets above have made
	rm -rf bin coverage.out coverage.html
