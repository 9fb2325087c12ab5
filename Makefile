# On a fresh Debian 12 with Go, make and git, as root or as a user with sudo:
#
#   make demo    installs what it needs, builds probed and shows it at work
#   make test    installs what it needs and runs every test
#
# 'make help' lists the rest. What is fetched or built on the way goes to .cache/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

GO ?= go
export GO

# Go where its own instructions put it, and nft, ip and setcap, which Debian
# keeps out of an ordinary user's PATH.
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin
# The version is stamped below, from git: go's own stamp fails in a checkout that
# belongs to somebody else, which is what root sees under sudo.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

CACHE := $(CURDIR)/.cache

# promtool is Debian's. The tests find it by this variable; set it to use another.
PROMTOOL ?= $(CACHE)/promtool/usr/bin/promtool
export PROMTOOL

# golangci-lint is built by 'go install pkg@version' and not as a tool of our
# module, or of a second one: so it gets exactly the dependencies that its authors
# released it with, checked against Go's checksum database, and ours stay as they
# are. A minute and a half on two cores, once.
GOLANGCI_VERSION := v2.15.0
GOLANGCI := $(CACHE)/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint

# What a build stamps in. All of it comes from the commit, so that whoever builds
# the same commit with the same Go gets the same bytes ('make reproducible').
VERSION := $(or $(VERSION),$(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null),unknown)
REVISION := $(or $(REVISION),$(shell git rev-parse HEAD 2>/dev/null),unknown)
BRANCH := $(or $(BRANCH),$(shell git rev-parse --abbrev-ref HEAD 2>/dev/null),unknown)
BUILD_DATE := $(or $(BUILD_DATE),$(shell TZ=UTC git log -1 --format=%cd --date=format-local:%Y%m%d-%H:%M:%S 2>/dev/null),unknown)
BUILD_USER ?= make
STAMP := github.com/prometheus/common/version
LDFLAGS := -s -w -buildid= \
	-X $(STAMP).Version=$(VERSION) -X $(STAMP).Revision=$(REVISION) -X $(STAMP).Branch=$(BRANCH) \
	-X $(STAMP).BuildUser=$(BUILD_USER) -X $(STAMP).BuildDate=$(BUILD_DATE)

# The packages whose tests open raw sockets, make namespaces or drive a browser, by
# path: they run as root, one package after the other, never from go's cache, and
# without the race detector, because they compare times. The others are plain Go: all
# at once, with the race detector. Of the first, RACED run under it too, but for the
# tests that hold a time against a bound or have a browser do so, which are named
# Accuracy and Browser: those come after, without it.
REAL := /(rawsock|internal/host|internal/lab|internal/status|cmd)(/|$$)
RACED := /(rawsock|internal/host|internal/status)(/|$$)

# Tests that need root get it when we aren't: the compiled test runs under sudo,
# the compiler doesn't.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,-exec "sudo env PATH=$(PATH) PROMTOOL=$(PROMTOOL)")

FUZZTIME ?= 10s
BENCH ?= .
export DEMO_SECONDS DEMO_PORT

.PHONY: build
build: go ## build ./probed: static, reproducible, with its version stamped in
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o probed ./cmd/probed

.PHONY: demo
demo: build ## run probed on its embedded default and show its figures (DEMO_SECONDS=5 ends by itself, DEMO_PORT=10965)
	@[ "$$(id -u)" -eq 0 ] || internal/tools/install.sh setcap
	@internal/tools/demo.sh ./probed

.PHONY: test
test: go tools $(PROMTOOL) ## run every test: with the race detector, then on real kernels against the clock
	@all=$$($(GO) list ./...); \
	echo "==> plain Go, race detector"; \
	$(GO) test -race -timeout 10m $$(grep -vE '$(REAL)' <<<"$$all"); \
	echo "==> real sockets, race detector"; \
	$(GO) test -race -p 1 -count=1 -timeout 10m -skip 'Accuracy|Browser' $(AS_ROOT) $$(grep -E '$(RACED)' <<<"$$all"); \
	echo "==> real sockets and the laboratory, against the clock"; \
	$(GO) test -p 1 -count=1 -timeout 20m $(AS_ROOT) $$(grep -E '$(REAL)' <<<"$$all" | grep -vE '$(RACED)'); \
	$(GO) test -p 1 -count=1 -timeout 20m -run 'Accuracy|Browser' $(AS_ROOT) $$(grep -E '$(RACED)' <<<"$$all")

.PHONY: lint
lint: go $(GOLANGCI) ## gofmt, go vet, golangci-lint (import rules among them), go.mod tidy and verified
	@unformatted=$$(find . -name '*.go' -not -path './.cache/*' -print0 | xargs -0 gofmt -l); \
	[ -z "$$unformatted" ] || { echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GOLANGCI) run ./...
	$(GO) mod tidy -diff
	$(GO) mod verify

.PHONY: reproducible
reproducible: go ## build HEAD twice in two places and compare the binaries
	@internal/tools/reproducible.sh

.PHONY: fuzz
fuzz: go ## run every fuzz target for FUZZTIME (10s) each
	@internal/tools/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: go tools ## run the benchmarks that BENCH (a regular expression, all) names, one package at a time
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -p 1 -timeout 30m $(AS_ROOT) ./...

.PHONY: cover
cover: go tools $(PROMTOOL) ## run every test once and write .cache/cover.html
	@mkdir -p $(CACHE)
	$(GO) test -p 1 -count=1 -timeout 30m -coverpkg=./... -coverprofile=$(CACHE)/cover.out $(AS_ROOT) ./...
	$(GO) tool cover -html=$(CACHE)/cover.out -o $(CACHE)/cover.html
	@$(GO) tool cover -func=$(CACHE)/cover.out | tail -n 1

.PHONY: clean
clean: ## remove what was built and fetched
	rm -rf probed $(CACHE)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What the others need.

.PHONY: go
go:
	@command -v $(GO) >/dev/null || { echo "probed is built with Go: install it, and put it in the PATH"; exit 1; }
	@$(GO) list -m >/dev/null || { echo "the Go here ($$($(GO) version)) is older than the one go.mod names"; exit 1; }

.PHONY: tools
tools:
	@internal/tools/install.sh ip ss nft sysctl tcpdump tshark nginx haproxy nsd setcap gcc libc-headers lwip chromium fonts fonts-cjk

$(CACHE)/promtool/usr/bin/promtool:
	@internal/tools/promtool.sh $(CACHE)/promtool

$(GOLANGCI):
	GOFLAGS= GOBIN=$(@D) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
