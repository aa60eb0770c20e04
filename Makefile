# optbuild. Two commands matter to a newcomer: `make demo` and `make test`.

VERSION ?= 0.1.0
RUNC_DIR := builder/runtime/runc
EMBEDDED := builder/runtime/embedded
RUNC_VERSION = $(shell cd $(RUNC_DIR) && go list -m -f '{{.Version}}' github.com/opencontainers/runc)
# Engines and commands of different builds do not talk to each other; the id is a digest of the sources.
BUILD_ID = $(shell { git ls-files -co --exclude-standard -- '*.go' go.mod go.sum | LC_ALL=C sort | xargs cat; cat $(EMBEDDED)/runc.sha256; printf %s "$(sort $(BACKENDS))"; } 2>/dev/null | sha256sum | cut -c1-16)
LDFLAGS = -s -w -X main.version=$(VERSION) -X github.com/optbuild/optbuild/builder.buildID=$(BUILD_ID)

# What tests and demo need besides Go: newuidmap, git and tar for contexts, mmdebstrap and dpkg for base images.
DEMO_PACKAGES = mmdebstrap ca-certificates uidmap
TEST_PACKAGES = $(DEMO_PACKAGES) git

# Types of caches that a binary has only if it is built with them, since their clients weigh on every start: make build BACKENDS=s3.
BACKENDS ?=
ALL_BACKENDS = s3
$(if $(filter-out $(ALL_BACKENDS),$(BACKENDS)),$(error BACKENDS has $(filter-out $(ALL_BACKENDS),$(BACKENDS)): there is $(ALL_BACKENDS)))
empty :=
comma := ,
tags = $(subst $(empty) ,$(comma),$(strip urfave_cli_no_docs $(addprefix optbuild_,$(sort $(1)))))

# One configuration for the binaries, the tests and the linters, so that each package is compiled once.
export GOFLAGS := -buildvcs=false -trimpath -tags=$(call tags,$(BACKENDS))
export CGO_ENABLED := 0

.PHONY: build test unit integration demo bench parity lint clean

OUT ?= bin/optbuild
build: $(EMBEDDED)/runc.sha256
	go build -ldflags "$(LDFLAGS)" -o $(OUT) ./cmd/optbuild

# test ends with go test's own lines.
test: lint build unit integration

# unit needs neither root nor network. Vetting the tests is lint's business.
unit: $(EMBEDDED)/runc.sha256
	go test -vet=off $$(go list ./... | grep -v '/integration$$')

# integration runs the real binary; apt packages that it needs are installed. The cd makes go test show what was skipped, and why.
integration: build bin/stock/buildkitd
	@./integration/install $(TEST_PACKAGES)
	cd integration && $(FUZZ_ENV) go test -vet=off -count=1 -timeout 60m

# What build fuzzing compares: optbuild with clean builds of stock BuildKit.
FUZZ_ENV = OPTBUILD_BIN=$(CURDIR)/bin/optbuild STOCK_BUILDKITD=$(CURDIR)/bin/stock/buildkitd STOCK_RUNC=$(CURDIR)/$(EMBEDDED)/runc

# demo builds a naive Dockerfile cold, again, and after an edit.
demo: build
	@./integration/install $(DEMO_PACKAGES)
	go run ./integration/demo -optbuild bin/optbuild

# bench measures optbuild and other builders in turn; root. BENCH="S3 W1" is a part of it, BENCH="-n 21 -run no-op -user somebody" are its flags. What was
# finished before it was stopped is not measured again.
bench: build bin/stock/buildkitd bin/floor
	@./integration/install $(DEMO_PACKAGES)
	@./integration/install buildah || echo "bench: goes on without buildah" >&2
	go run ./integration/bench -json bin/bench.jsonl -html bin/bench.html $(BENCH)

bin/floor: $(wildcard integration/bench/floor/*.go) go.mod
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $@ ./integration/bench/floor

# bench-go runs the benchmarks of inner loops and compares them with those of the last time, or of OLD=file.
BENCH_GO = ./frontend/opt ./frontend/world ./builder/trace ./builder/export ./builder/compress
OLD ?= bin/bench-go.old
.PHONY: bench-go
bench-go: bin/benchstat $(EMBEDDED)/runc.sha256
	@test ! -e bin/bench-go.new || mv bin/bench-go.new bin/bench-go.old
	go test -run '^$$' -bench . -count $(or $(COUNT),6) $(BENCH_GO) > bin/bench-go.part || { cat bin/bench-go.part; exit 1; }
	@mv bin/bench-go.part bin/bench-go.new
	bin/benchstat $$(test ! -e $(OLD) || echo $(OLD)) bin/bench-go.new

bin/benchstat: integration/bench/stat/go.mod integration/bench/stat/go.sum
	cd integration/bench/stat && go build -o ../../../$@ golang.org/x/perf/cmd/benchstat

bin/stock/buildkitd: integration/bench/stock/go.mod integration/bench/stock/go.sum
	cd integration/bench/stock && go build -tags= -ldflags "-s -w" -o ../../../bin/stock/ \
	  github.com/moby/buildkit/cmd/buildkitd github.com/moby/buildkit/cmd/buildctl

# parity compares images with stock BuildKit's, digest by digest, and tries the frontend's image, nodes (build --node) and caches outside of registries with stock BuildKit; root.
parity: build bin/stock/buildkitd
	@./integration/install $(TEST_PACKAGES)
	@$(MAKE) build BACKENDS="$(ALL_BACKENDS)" OUT=bin/optbuild-backends
	cd integration && OPTBUILD_BIN=$(CURDIR)/bin/optbuild OPTBUILD_BACKENDS_BIN=$(CURDIR)/bin/optbuild-backends STOCK_BUILDKITD=$(CURDIR)/bin/stock/buildkitd STOCK_BUILDCTL=$(CURDIR)/bin/stock/buildctl \
	  STOCK_RUNC=$(CURDIR)/$(EMBEDDED)/runc go test -count=1 -run '^Test(Parity|ParityAttested|FrontendImage|Nodes|Backends)$$'

lint: bin/staticcheck $(EMBEDDED)/runc.sha256
	@out=$$(git ls-files -co --exclude-standard -- '*.go' | xargs gofmt -l); test -z "$$out" || { echo "run gofmt -w on:"; echo "$$out"; exit 1; }
	go vet ./...
	go vet -tags=$(call tags,$(ALL_BACKENDS)) ./builder/backend ./builder/engine/backends ./builder/request
	bin/staticcheck ./...

bin/staticcheck: integration/lint/go.mod integration/lint/go.sum
	cd integration/lint && go build -o ../../$@ honnef.co/go/tools/cmd/staticcheck

# frontend-image builds the frontend as an image, for `# syntax=` under any BuildKit: an OCI archive below bin, or, with
# FRONTEND_IMAGE=registry/name:tag, pushed there. The same sources give the same digest.
FRONTEND_PLATFORMS ?= linux/amd64 linux/arm64
.PHONY: frontend-image frontend-binaries
frontend-image: build frontend-binaries
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) bin/optbuild build -f cmd/optbuild-frontend/Dockerfile \
	  --platform $(subst $(empty) ,$(comma),$(FRONTEND_PLATFORMS)) $(FRONTEND_FLAGS) \
	  -o $(if $(FRONTEND_IMAGE),type=image$(comma)name=$(FRONTEND_IMAGE)$(comma)push=true,type=oci$(comma)dest=bin/optbuild-frontend.tar),rewrite-timestamp=true bin/frontend

frontend-binaries:
	@set -e; for p in $(FRONTEND_PLATFORMS); do \
	  GOOS=$${p%/*} GOARCH=$${p#*/} go build -ldflags "-s -w -X main.version=$(VERSION)" -o bin/frontend/$$p/ ./cmd/optbuild-frontend; done

# fuzz-build tries to make replays wrong: every mutation of every project's context, then N generated projects that are edited at random, all compared
# with clean builds. SEED= replays a run; PROJECTS=name,name narrows it (integration/fuzzbuild/README.md). `make test` has a sample.
.PHONY: fuzz-build
fuzz-build: build bin/stock/buildkitd
	@./integration/install $(TEST_PACKAGES)
	@seed=$(SEED); export SEED=$${seed:-$$(date +%s)}; echo "fuzz-build: SEED=$$SEED $$(date +%F)"; \
	  cd integration && $(FUZZ_ENV) MUTATIONS=0 PROJECTS=$(PROJECTS) SEQUENCES=$(or $(N),40) STEPS=$(or $(STEPS),200) RUNNERS=$(or $(RUNNERS),200) \
	  go test -count=1 -timeout 12h -run '^TestFuzzBuild$$$(if $(N),/^sequences$$,$(if $(PROJECTS),/^mutations$$))'

clean:
	rm -rf bin $(EMBEDDED)/runc $(EMBEDDED)/runc.version $(EMBEDDED)/runc.sha256

# runc: static, with seccomp; what that needs is installed if it is missing.
$(EMBEDDED)/runc.sha256: $(RUNC_DIR)/go.mod $(RUNC_DIR)/go.sum
	@{ pkg-config --exists libseccomp && command -v gcc; } >/dev/null 2>&1 || ./integration/install libseccomp-dev gcc libc6-dev pkg-config
	cd $(RUNC_DIR) && CGO_ENABLED=1 go build -tags "seccomp netgo osusergo" \
	  -ldflags "-s -w -extldflags -static -X main.version=$(RUNC_VERSION:v%=%)" -o ../embedded/runc github.com/opencontainers/runc
	echo $(RUNC_VERSION:v%=%) > $(EMBEDDED)/runc.version
	sha256sum < $(EMBEDDED)/runc | cut -d' ' -f1 > $@

# BuildKit's own Dockerfile test suite against our engine and frontend. SUBSET=smoke is the quick part that CI runs; ROWS= and
# TESTS= narrow it further (integration/conformance/README.md). Needs root or sudo; skipped with a reason where the suite is not.
.PHONY: conformance
conformance: build frontend-binaries
	./integration/conformance/run $(SUBSET)
	$(if $(SUBSET),,$(MAKE) equivalence)

# equivalence compares optimised builds with stock's: the corpus, and N generated cases from SEED on, which is printed; a seed is
# replayed with N=1. `make test` has 300 of them.
.PHONY: equivalence
equivalence: build
	@./integration/install $(TEST_PACKAGES)
	@seed=$(SEED); seed=$${seed:-$$(date +%s)}; n=$(N); echo "equivalence: SEED=$$seed N=$${n:-5000}"; \
	  cd integration && OPTBUILD_BIN=$(CURDIR)/bin/optbuild GENERATED=$${n:-5000} SEED=$$seed \
	  go test -count=1 -timeout 6h -run '^(TestEquivalence|TestGenerated)$$'
