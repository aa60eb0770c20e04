# optbuild. Two commands matter to a newcomer: `make demo` and `make test`.

VERSION ?= 0.1.0
RUNC_DIR := builder/runtime/runc
EMBEDDED := builder/runtime/embedded
RUNC_VERSION = $(shell cd $(RUNC_DIR) && go list -m -f '{{.Version}}' github.com/opencontainers/runc)
# Engines and commands of different builds do not talk to each other; the id is a digest of the sources.
BUILD_ID = $(shell { git ls-files -co --exclude-standard -- '*.go' go.mod go.sum | LC_ALL=C sort | xargs cat; cat $(EMBEDDED)/runc.sha256; } 2>/dev/null | sha256sum | cut -c1-16)
LDFLAGS = -s -w -X main.version=$(VERSION) -X github.com/optbuild/optbuild/builder.buildID=$(BUILD_ID)

export GOFLAGS := -buildvcs=false

.PHONY: build runc
build: $(EMBEDDED)/runc.sha256
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o bin/optbuild ./cmd/optbuild

# runc: static, with seccomp; libseccomp-dev is installed if it is missing.
$(EMBEDDED)/runc.sha256: $(RUNC_DIR)/go.mod $(RUNC_DIR)/go.sum
	@test -e /usr/include/seccomp.h || ./integration/install libseccomp-dev gcc libc6-dev
	cd $(RUNC_DIR) && CGO_ENABLED=1 go build -trimpath -tags "seccomp netgo osusergo" \
	  -ldflags "-s -w -extldflags -static -X main.version=$(RUNC_VERSION:v%=%)" -o ../embedded/runc github.com/opencontainers/runc
	echo $(RUNC_VERSION:v%=%) > $(EMBEDDED)/runc.version
	sha256sum < $(EMBEDDED)/runc | cut -d' ' -f1 > $@
