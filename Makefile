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

# What is tested is what is shipped: without C, whose threads are not Go's to take rights
# from (internal/confine). The race detector alone needs it.
export CGO_ENABLED := 0

CACHE := $(CURDIR)/.cache

# Tools run here, whatever probed is built for: GOARCH=arm64 make packages.
HERE := GOOS= GOARCH=

# promtool, prometheus and amtool are Debian's. The tests find them by these variables;
# set one to use another.
PROMTOOL ?= $(CACHE)/promtool/usr/bin/promtool
PROMETHEUS ?= $(CACHE)/promtool/usr/bin/prometheus
AMTOOL ?= $(CACHE)/promtool/usr/bin/amtool
export PROMTOOL PROMETHEUS AMTOOL

# golangci-lint is built by 'go install pkg@version' and not as a tool of our
# module, or of a second one: so it gets exactly the dependencies that its authors
# released it with, checked against Go's checksum database, and ours stay as they
# are. A minute and a half on two cores, once.
GOLANGCI_VERSION := v2.15.0
GOLANGCI := $(CACHE)/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint

# nfpm makes the packages. Later versions lean on modules that Go's proxy does not
# serve everywhere.
NFPM_VERSION := v2.45.2
NFPM ?= $(CACHE)/nfpm-$(NFPM_VERSION)/nfpm
export NFPM

# What holds the list of what probed is made of (an SBOM) to its format. It is a module
# of its own, with the format's own library and schemas.
SCHEMAS := github.com/CycloneDX/cyclonedx-go@v0.12.0
CHECK ?= $(CACHE)/sbom-check-$(shell cat internal/tools/sbom/check/* | sha256sum | cut -c1-12)/check
export SCHEMAS CHECK

# govulncheck looks known vulnerabilities up, in a database that it fetches.
GOVULNCHECK_VERSION := v1.8.0
GOVULNCHECK := $(CACHE)/govulncheck-$(GOVULNCHECK_VERSION)/govulncheck

# What the tests of deploy/kubernetes ask: kustomize, which renders the manifests, and
# admit, which answers as an API server would (two minutes to build, once), with the
# Prometheus Operator's definitions of its resources.
KUSTOMIZE_VERSION := v5.8.1
OPERATOR := github.com/prometheus-operator/prometheus-operator@v0.85.0
KUBERNETES := $(CACHE)/kubernetes

# The packages' version: 1.2.3 at the tag v1.2.3, 1.2.3+git20261121.131400.0123456789ab
# after it, and before any tag one that sorts before all.
PACKAGE_VERSION ?= $(shell internal/tools/package-version.sh)
DIST := $(CURDIR)/dist

# A Debian that boots, as a tar file: what the packages are installed into by the
# tests.
DEBIAN_ROOT ?= $(CACHE)/debian-bookworm.tar
export DIST DEBIAN_ROOT

# What a build stamps in. All of it comes from the commit and its tags, so that whoever
# builds the same commit with the same Go gets the same bytes ('make reproducible').
VERSION := $(or $(VERSION),$(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null),unknown)
REVISION := $(or $(REVISION),$(shell git rev-parse HEAD 2>/dev/null),unknown)
# Not a branch's name: the same commit is on several, and on none in a checkout of a tag.
BRANCH ?= HEAD
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
# Accuracy and Browser: those come after, without it. What waits for minutes and does
# next to nothing meanwhile is named Lasting, and runs beside the others. internal/scale
# simulates in one goroutine a shard: no race to find, and thirty times as long.
REAL := /(rawsock|internal/host|internal/lab|internal/status|internal/booted|internal/monitoring|internal/kubernetes|internal/scale|cmd)(/|$$)
RACED := /(rawsock|internal/host|internal/status)(/|$$)

# Tests that need root get it when we aren't: the compiled test runs under sudo,
# the compiler doesn't.
AS_ROOT = $(if $(filter 0,$(shell id -u)),,-exec "sudo env PATH=$(PATH) PROMTOOL=$(PROMTOOL) PROMETHEUS=$(PROMETHEUS) AMTOOL=$(AMTOOL) NFPM=$(NFPM) DIST=$(DIST) DEBIAN_ROOT=$(DEBIAN_ROOT) $(BENCH_ENV) $(TRUST_ENV) $(SOAK_ENV)")

FUZZTIME ?= 10s
BENCH ?= .

# How 'make bench' measures: so many paired rounds, each for so long, of which of its
# tests. Its lines are appended to RESULTS, which benchstat reads.
BENCH_ROUNDS ?= 5
BENCH_WINDOW ?= 1500ms
BENCH_RUN ?= Handshakes|Monitoring|Accuracy|Growth
RESULTS ?= $(CACHE)/bench.txt
# Which of the attacks 'make trust' makes, and the file that it appends to.
TRUST_RUN ?= .
# Which tests 'make syscalls' traces.
SYSCALLS_RUN ?= .
TRUSTED := $(CACHE)/trust.jsonl
trust: TRUST_ENV = TRUST_FULL=1 TRUST_OUT=$(TRUSTED)
# How long 'make soak' runs, and the file that it writes its tables to.
SOAK ?= 10m
SOAKED := $(CACHE)/soak.md
export DEMO_SECONDS DEMO_PORT

.PHONY: build
build: go ## build ./probed: static, reproducible, with its version stamped in
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o probed ./cmd/probed

.PHONY: packages
packages: build $(NFPM) certificates sbom ## build dist/probed_*.deb, dist/probed-*.rpm and dist/rootfs.tar, for a container
	@internal/tools/package.sh probed '$(PACKAGE_VERSION)' $(DIST)

.PHONY: sbom
sbom: build $(CHECK) ## write what probed is made of to dist/probed_*.cdx.json, as CycloneDX
	@internal/tools/sbom.sh probed '$(PACKAGE_VERSION)' $(DIST)

.PHONY: image
image: packages ## build the container image probed:PACKAGE_VERSION with Docker
	docker build -t probed:$(subst ~,-,$(subst +,-,$(PACKAGE_VERSION))) -f deploy/container/Dockerfile $(DIST)

.PHONY: demo
demo: build ## run probed on its embedded default and show its figures (DEMO_SECONDS=5 ends by itself, DEMO_PORT=10965)
	@[ "$$(id -u)" -eq 0 ] || internal/tools/install.sh setcap
	@internal/tools/demo.sh ./probed

.PHONY: test
test: go tools packages $(PROMTOOL) $(PROMETHEUS) $(AMTOOL) $(DEBIAN_ROOT) kubernetes ## run every test: with the race detector, then on real kernels against the clock
	@all=$$($(GO) list ./...); \
	echo "==> plain Go, race detector"; \
	CGO_ENABLED=1 $(GO) test -race -timeout 10m $$(grep -vE '$(REAL)' <<<"$$all"); \
	[ "$$($(GO) env GOHOSTARCH)" != amd64 ] || { echo "==> the engine and the configuration, in 32 bits"; GOARCH=386 $(GO) test ./probe/... ./config; }; \
	echo "==> real sockets, race detector"; \
	CGO_ENABLED=1 $(GO) test -race -p 1 -count=1 -timeout 10m -skip 'Accuracy|Browser|Lasting' $(AS_ROOT) $$(grep -E '$(RACED)' <<<"$$all"); \
	echo "==> real sockets and the laboratory, against the clock"; \
	$(GO) test -count=1 -timeout 10m -run Lasting $(AS_ROOT) $$(grep internal/host <<<"$$all") & lasting=$$!; \
	trap 'kill $$lasting 2>/dev/null || true' EXIT; \
	$(GO) test -p 1 -count=1 -timeout 20m $(AS_ROOT) $$(grep -E '$(REAL)' <<<"$$all" | grep -vE '$(RACED)'); \
	wait $$lasting; \
	$(GO) test -p 1 -count=1 -timeout 20m -run 'Accuracy|Browser' $(AS_ROOT) $$(grep -E '$(RACED)' <<<"$$all")

.PHONY: lint
lint: go $(GOLANGCI) ## gofmt, go vet (for 32 bits, too), golangci-lint (import rules among them), go.mod tidy and verified
	@unformatted=$$(find . -name '*.go' -not -path './.cache/*' -print0 | xargs -0 gofmt -l); \
	[ -z "$$unformatted" ] || { echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	GOARCH=386 $(GO) vet ./...
	$(GOLANGCI) run ./...
	$(GO) mod tidy -diff
	$(GO) mod verify

.PHONY: reproducible
reproducible: go $(NFPM) $(CHECK) ## build HEAD twice, in two places and by two users, and compare binaries, packages and SBOMs
	@internal/tools/reproducible.sh

.PHONY: fuzz
fuzz: go ## run every fuzz target for FUZZTIME (10s) each
	@internal/tools/fuzz.sh $(FUZZTIME)

.PHONY: fuzz-short
fuzz-short: go ## run every fuzz target with some hundred inputs made of the seeds
	@internal/tools/fuzz.sh 500x blind

.PHONY: vulncheck
vulncheck: go $(GOVULNCHECK) ## look for known vulnerabilities in our code and in the binary (GOVULNDB=file:///… for a database of your own)
	@mkdir -p $(CACHE)
	$(GO) build -o $(CACHE)/probed-symbols ./cmd/probed
	@internal/tools/vulncheck.sh $(GOVULNCHECK) $(CACHE)/probed-symbols

.PHONY: bench
bench bench-profile: BENCH_ENV = BENCH_ROUNDS=$(BENCH_ROUNDS) BENCH_WINDOW=$(BENCH_WINDOW) BENCH_OUT=$(RESULTS) PROBED_SYMBOLS=$(CACHE)/probed-symbols
bench: go tools build ## measure probed beside zmap, masscan, net.Dialer, exporters and pings: 20 minutes (BENCH_ROUNDS=1 BENCH_WINDOW=300ms: one)
	@mkdir -p $(dir $(RESULTS)) && rm -f $(RESULTS)
	$(BENCH_ENV) $(GO) test -count=1 -v -timeout 60m -run '$(BENCH_RUN)' $(AS_ROOT) ./internal/lab/bench

.PHONY: bench-profile
bench-profile: go build ## have perf(1) look where the time of a probe goes, and add that to what 'make bench' found
	@internal/tools/install.sh perf
	@mkdir -p $(dir $(RESULTS))
	$(GO) build -o $(CACHE)/probed-symbols ./cmd/probed
	$(BENCH_ENV) $(GO) test -count=1 -run '^$$' -bench Profile -benchtime 1x $(AS_ROOT) ./internal/lab/bench

.PHONY: bench-page
bench-page: go ## write what 'make bench' found into docs/performance.md, its lines into docs/performance.txt
	cp $(RESULTS) docs/performance.txt
	BENCH_OUT=$(CURDIR)/docs/performance.txt BENCH_PAGE=$(CURDIR)/docs/performance.md $(GO) test -count=1 -run '^$$' ./internal/lab/bench

.PHONY: bench-go
bench-go: go tools ## run the Go benchmarks that BENCH (a regular expression, all) names, one package at a time
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -p 1 -timeout 30m $(AS_ROOT) ./...

.PHONY: trust
trust: go tools build ## attack probed and break what it stands on, at full length, and print what came of it (TRUST_RUN=Forged: those tests)
	@mkdir -p $(CACHE)
	$(TRUST_ENV) $(GO) test -count=1 -v -timeout 90m -run '$(TRUST_RUN)' $(AS_ROOT) ./internal/lab/trust

.PHONY: trust-page
trust-page: go ## write what 'make trust' found into docs/trust.md
	TRUST_OUT=$(TRUSTED) TRUST_PAGE=$(CURDIR)/docs/trust.md $(GO) test -count=1 -run '^$$' ./internal/lab/trust

.PHONY: syscalls
syscalls: go tools $(PROMTOOL) $(PROMETHEUS) $(AMTOOL) ## trace probed through the tests of cmd/probed and compare its system calls with internal/confine's list: 10 minutes
	@internal/tools/install.sh strace
	@$(if $(filter 0,$(shell id -u)),,sudo env PATH=$(PATH) PROMTOOL=$(PROMTOOL) PROMETHEUS=$(PROMETHEUS) AMTOOL=$(AMTOOL)) internal/tools/syscalls.sh '$(SYSCALLS_RUN)'

.PHONY: soak
soak: SOAK_ENV = SOAK=$(SOAK) SOAK_OUT=$(SOAKED)
soak: go tools build ## run probed for SOAK (10m) at 5,000 probes/s with faults, reloads, scrapes and page views, and print whether it stays as it was
	@mkdir -p $(CACHE)
	$(SOAK_ENV) $(GO) test -count=1 -v -timeout 24h -run 'TestSoak$$' $(AS_ROOT) ./internal/lab/trust

.PHONY: simulate
simulate: go ## a million targets through a day of virtual time: some minutes, 2 GiB
	$(GO) test ./internal/scale -run '^$$' -bench Million -benchtime 1x -timeout 60m

.PHONY: cover
cover: go tools packages $(PROMTOOL) $(PROMETHEUS) $(AMTOOL) $(DEBIAN_ROOT) kubernetes ## run every test once and write .cache/cover.html
	@mkdir -p $(CACHE)
	$(GO) test -p 1 -count=1 -timeout 30m -coverpkg=./... -coverprofile=$(CACHE)/cover.out $(AS_ROOT) ./...
	$(GO) tool cover -html=$(CACHE)/cover.out -o $(CACHE)/cover.html
	@$(GO) tool cover -func=$(CACHE)/cover.out | tail -n 1

.PHONY: clean
clean: ## remove what was built and fetched
	rm -rf probed $(CACHE) $(DIST)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What the others need.

.PHONY: go
go:
	@command -v $(GO) >/dev/null || { echo "probed is built with Go: install it, and put it in the PATH"; exit 1; }
	@$(GO) list -m >/dev/null || { echo "the Go here ($$($(GO) version)) is older than the one go.mod names"; exit 1; }

.PHONY: certificates
certificates:
	@internal/tools/install.sh ca-certificates

.PHONY: tools
tools:
	@internal/tools/install.sh ip ss nft sysctl tcpdump tshark nginx haproxy nsd setcap gcc libc-headers lwip chromium fonts fonts-cjk mmdebstrap nspawn lintian rpm rpmlint mandoc runc \
		zmap masscan hping3 nping scamper ping prometheus-blackbox-exporter prometheus-smokeping-prober

$(addprefix $(CACHE)/promtool/usr/bin/,promtool prometheus amtool) &:
	@internal/tools/promtool.sh $(CACHE)/promtool

$(DEBIAN_ROOT): tools
	@[ -e $@ ] || internal/tools/debian-root.sh $@

$(NFPM):
	$(HERE) GOFLAGS= GOBIN=$(@D) $(GO) install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)

$(CHECK):
	cd internal/tools/sbom/check && $(HERE) CGO_ENABLED=0 $(GO) build -o $@ .

$(GOVULNCHECK):
	$(HERE) GOFLAGS= GOBIN=$(@D) $(GO) install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)

.PHONY: kubernetes
kubernetes: $(KUBERNETES)/kustomize $(KUBERNETES)/admit $(KUBERNETES)/crds

$(KUBERNETES)/kustomize:
	$(HERE) GOFLAGS= GOBIN=$(@D) $(GO) install sigs.k8s.io/kustomize/kustomize/v5@$(KUSTOMIZE_VERSION)

# A module of its own, so that what it needs is nobody's dependency.
$(KUBERNETES)/admit: $(wildcard internal/kubernetes/admit/*.go internal/kubernetes/admit/go.*)
	cd internal/kubernetes/admit && $(HERE) $(GO) build -o $@ .

$(KUBERNETES)/crds:
	@mkdir -p $@.new
	@from=$$(cd / && $(GO) mod download -json $(OPERATOR) | sed -n 's/^.*"Dir": "\(.*\)".*$$/\1/p')/example/prometheus-operator-crd; \
	install -m 644 "$$from"/monitoring.coreos.com_{podmonitors,servicemonitors,prometheusrules}.yaml $@.new
	@mv $@.new $@

$(GOLANGCI):
	$(HERE) GOFLAGS= GOBIN=$(@D) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
