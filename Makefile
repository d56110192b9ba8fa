# Every target sets up what it needs: Python 3.11+ and make are enough for `run`, `test`, `lint`.
# What needs more says so in the last column of `make help`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Brokers, and replicas of every topic, in `conformance` and `foreign`.
FACTOR ?= 1
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this page
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Strandline needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: setup
setup: $(STAMP) ## create .venv with everything that run, test and lint need

.PHONY: run
run: $(STAMP) ## start a three-broker cluster on localhost:9092-9094, apply examples/, show a live status
	$(BIN)/strandline dev --brokers 3 --manifests examples --data-dir .strandline

.PHONY: test
test: $(STAMP) ## the test suite
	$(BIN)/python -m pytest tests

.PHONY: test-kubernetes
test-kubernetes: $(STAMP) ## what needs a real API server [KUBECONFIG; or K8S_LAB and KUBE_ASSETS]
	e2e/lab/with-api-server $(BIN)/python -m pytest tests/kubernetes -m kubernetes

.PHONY: test-s3
test-s3: $(STAMP) ## the object store against a real S3 server [AWS_ENDPOINT_URL_S3 and AWS credentials]
	$(BIN)/python -m pytest tests/s3 -m s3

.PHONY: e2e-lab
e2e-lab: $(STAMP) ## install, failures and outages on a real control plane and three nodes [root; K8S_LAB and KUBE_ASSETS]
	PYTHON=$(BIN)/python e2e/lab/run

.PHONY: e2e-kind
e2e-kind: $(STAMP) ## the same on kind [docker, kind, kubectl, helm]
	PYTHON=$(BIN)/python e2e/kind/run

.PHONY: lint
lint: $(STAMP) ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

.PHONY: format
format: $(STAMP) ## let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(STAMP) ## CPU, latency, memory; beside Apache Kafka [java, mvn: skipped without]; then bench-tiering
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.tiering

.PHONY: bench-tiering
bench-tiering: $(STAMP) ## what tiered storage gives and costs; on S3, too, where a server is named [AWS_ENDPOINT_URL_S3 and AWS credentials]
	$(BIN)/python -m benchmarks.tiering

.PHONY: bench-replication
bench-replication: $(STAMP) ## failover, rolling restart, cost of replication at factor 3; beside Kafka [java, mvn]
	$(BIN)/python -m benchmarks.replication

.PHONY: foreign
foreign: $(STAMP) ## real clients from elsewhere: kcat, Kafka's Java tools; FACTOR=3 [kcat, java, mvn]
	FOREIGN_FACTOR=$(FACTOR) $(BIN)/python -m pytest tests/foreign -m foreign

.PHONY: conformance
conformance: $(STAMP) ## suites written by others, each with its allow-list; FACTOR=3 [openssl; kcat, node, npm]
	$(BIN)/python -m tests.conformance.run --factor $(FACTOR)

.PHONY: crash
crash: $(STAMP) ## 100 kill -9 under load, and 1,000 seeds of power loss
	$(BIN)/python -m tests.crash.kill_harness --kills 100
	STRANDLINE_SEEDS=1000 $(BIN)/python -m pytest tests/crash/test_power_loss.py

MB ?= 300
.PHONY: tiering
tiering: $(STAMP) ## MB=300 of records through both tiers of three brokers, every byte compared
	$(BIN)/python -m tests.crash.tiering_run --mb $(MB)

SEEDS ?= 0:200
.PHONY: simulate
simulate: $(STAMP) ## whole clusters on virtual time under faults drawn from SEEDS=first:end
	$(BIN)/python -m tests.simulation.run --seeds $(SEEDS) --jobs $$(nproc) $(if $(RECORD),--record $(RECORD))

.PHONY: storm
storm: $(STAMP) ## 200 consumers join, leave and die for 10 minutes while the broker is killed
	$(BIN)/python -m tests.crash.rebalance_storm --minutes 10 --consumers 200 --kills 3

.PHONY: nemesis
nemesis: $(STAMP) ## 10 minutes of random faults against three brokers [root: full disks, cut networks]
	$(BIN)/python -m tests.crash.nemesis --minutes 7
	$(BIN)/python -m tests.crash.netns_cluster --minutes 3

.PHONY: model
model: $(STAMP) ## every schedule of small worlds: all rules on, then each one off [25 minutes]
	$(BIN)/python -m tests.model.run

.PHONY: fuzz
fuzz: $(STAMP) ## coverage-guided fuzzing of every decoder, 60 s each [installs atheris]
	$(BIN)/pip install --quiet --disable-pip-version-check atheris
	$(BIN)/python -m tests.fuzz.run --seconds 60

.PHONY: docs
docs: $(STAMP) ## rewrite the generated pages
	$(BIN)/python -m strandline_broker.wire.compatibility > docs/compatibility.md
	$(BIN)/python -m strandline_broker.server.config_reference > docs/configuration.md

HELM ?= helm
.PHONY: manifests
manifests: ## rewrite manifests/install.yaml, the chart without Helm [helm]
	@printf '%s\n' '# Written by `make manifests` from charts/strandline; do not edit.' 'apiVersion: v1' 'kind: Namespace' \
	  'metadata:' '  name: strandline-system' > manifests/install.yaml
	$(HELM) template strandline charts/strandline --namespace strandline-system --include-crds --kube-version 1.34.0 \
	  >> manifests/install.yaml

.PHONY: image
image: ## build the container image [docker]
	docker build --tag strandline:dev .

.PHONY: clean
clean: ## remove what `run` and the tools left behind
	rm -rf .strandline .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
