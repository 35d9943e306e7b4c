# Every target makes the environment it needs in .venv by itself. `make help` lists them.
PYTHON ?= python3.11
BIN := .venv/bin
ENV := .venv/.installed
RUN := $(ENV)
# One more than the cores of a small machine: many tests wait for processes rather than for a core.
TEST_PROCESSES ?= 3
SOURCES := services workers proto tests

# Without cached bytecode every process would compile torch's and SQLAlchemy's sources anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help env demo test k8s-check lint format types layers spelling proto proto-check lock rules proofs bench fuzz simulate kill-test chaos chaos-nightly images test-compose clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

env: $(ENV) ## Make .venv from the hash-locked requirements

$(ENV): requirements/bootstrap.txt requirements/dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Trainyard needs Python 3.11: install it or say make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(ENV)

demo: $(RUN) ## Train, deploy and query a digit detector on the embedded default (writes out/demo.json, out/demo.png)
	$(BIN)/trainyard demo --out out

test: $(RUN) ## Check the code and run every test
	$(MAKE) --no-print-directory --jobs 2 --output-sync lint types layers spelling proto-check
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --durations 25

k8s-check: $(RUN) ## Render every overlay, validate it against the API schemas, check its policies
	$(BIN)/python -m pytest tests/unit/k8s

lint: $(RUN) ## Check style
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: $(RUN) ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: $(RUN) ## Check types, strictly
	$(BIN)/mypy

layers: $(RUN) ## Check the dependency rules
	$(BIN)/lint-imports

spelling: $(RUN) ## Check spelling
	$(BIN)/codespell

proto: $(RUN) ## Generate the wire code from proto/
	$(BIN)/python proto/generate.py

proto-check: $(RUN) ## Fail when the generated wire code is not what proto/ says
	$(BIN)/python proto/generate.py --check

rules: $(RUN) ## Put the Prometheus rules of deploy/ into the Kubernetes manifests
	$(BIN)/python deploy/prometheus/for_kubernetes.py

proofs: $(RUN) ## Train every recipe's small proof through the platform (writes out/proofs.json)
	$(BIN)/python -m tests.proofs --out out

bench: $(RUN) ## Measure latency, stalls and throughput (writes out/bench.json)
	$(BIN)/python -m tests.bench --out out

fuzz: $(RUN) ## Call every rpc 20,000 times with random and hostile messages (writes out/fuzz.json)
	$(BIN)/python -m tests.fuzz --calls 20000 --out out

simulate: $(RUN) ## Run the job protocol through 1,000 random mixes of faults in virtual time
	$(BIN)/python -m tests.simulation --seeds 1000

kill-test: $(RUN) ## Kill a worker at 20 random steps and compare the final weights (writes out/kill.json)
	$(BIN)/python -m tests.chaos.kill_worker --out out

chaos: $(RUN) ## Inject every fault of the matrix into real processes and check the invariants (writes out/chaos.json)
	$(BIN)/python -m tests.chaos --out out

chaos-nightly: $(RUN) ## Mix random faults for 30 minutes and check the invariants (writes out/chaos_nightly.json)
	$(BIN)/python -m tests.chaos --nightly 30 --out out

images: ## Build the images of compose.yaml and of the Kubernetes manifests (TRAINYARD_TAG names them)
	deploy/images.sh

test-compose: $(RUN) ## Build every image without a registry, start compose.yaml, test it, remove it (writes out/compose.json)
	$(BIN)/python -m tests.compose --out out

LOCK := $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
lock: ## Resolve pyproject.toml into requirements/ again
	$(LOCK) requirements/bootstrap.in -o requirements/bootstrap.txt
	$(LOCK) pyproject.toml --extra dev -o requirements/dev.txt
	$(LOCK) pyproject.toml --extra api -c requirements/dev.txt -o requirements/api.txt
	$(LOCK) pyproject.toml --extra worker -c requirements/dev.txt -o requirements/worker.txt
	$(LOCK) pyproject.toml --extra worker --extra serving -c requirements/dev.txt -o requirements/torchserve.txt
	$(LOCK) pyproject.toml --extra api --extra worker --extra serving --extra demo -c requirements/dev.txt -o requirements/all.txt

clean: ## Remove the environment and everything built
	rm -rf .venv .cache out dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
