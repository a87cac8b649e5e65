# Everything a developer runs. PORT_BASE=n moves every port; EXIT=1 ends the demo when it is done.
# BENCH_ROUNDS, BENCH_BYTES, BENCH_FILES, BENCH_HUGE_BYTES, BENCH_SEALS and BENCH_YEARS
# choose how much is measured.
PYTHON ?= python3.11
BIN := .run/gateway-env/bin
PYTEST_ARGS ?=
GATEWAY_TESTS ?= tests --ignore=tests/pipeline --ignore=tests/dags --ignore=tests/auth_manager --ignore=tests/provider --ignore=tests/spark
AIRFLOW_TESTS ?= $(wildcard tests/pipeline tests/dags tests/auth_manager tests/provider tests/spark)
# The demo begins afresh each time: what `make up` keeps lies elsewhere.
DEMO := STACK_DIR=$(CURDIR)/.run/demo
each_stack = if [ -x $(BIN)/python ]; then \
	$(BIN)/python -m deploy.local $(1) && $(DEMO) $(BIN)/python -m deploy.local $(1); fi
export PORT_BASE EXIT BENCH_ROUNDS BENCH_BYTES BENCH_FILES BENCH_HUGE_BYTES BENCH_SEALS BENCH_YEARS

.DEFAULT_GOAL := help
.PHONY: help demo up down test test-gateway test-airflow test-s3 lint lint-types lint-ruff \
	lint-contracts lock clean bootstrap bench bench-peers bench-large bench-streams bench-small \
	bench-memory bench-latency bench-trigger bench-pipeline

help: ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

bootstrap: # the two locked environments, and OpenLDAP where it is missing
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is missing: install Debian's python3.11" >&2; exit 1; }
	@$(PYTHON) -m deploy.local.environments

demo: bootstrap ## start everything, deliver real data, show what became of it
	@$(PYTHON) -m deploy.local.dataset
	@$(DEMO) exec $(BIN)/python -u -m deploy.local demo

up: bootstrap ## start everything in the background; .run/stack.env says where
	@exec $(BIN)/python -m deploy.local up

down: ## stop what `make up` started, or a demo that was killed has left
	@$(call each_stack,down)

test: bootstrap ## run the whole suite on real Postgres, OpenLDAP and Airflow
	@gateway=0; airflow=0; \
	$(MAKE) --no-print-directory test-gateway || gateway=$$?; \
	$(MAKE) --no-print-directory test-airflow || airflow=$$?; \
	exit $$((gateway || airflow))

test-gateway:
	$(BIN)/python -m pytest -n 2 $(GATEWAY_TESTS) $(PYTEST_ARGS)

# A process for each folder, of which the longest takes as long as the others together.
test-airflow:
	@$(MAKE) --no-print-directory -j2 -k -Otarget $(AIRFLOW_TESTS:tests/%=test-airflow-%)

test-airflow-%:
	PYTHONPATH=airflow:airflow/plugins .run/airflow-env/bin/python -m pytest --rootdir . tests/$* $(PYTEST_ARGS)

test-s3: bootstrap ## run what a landing zone on an object store promises, on a real one (Ceph)
	@$(BIN)/python -m deploy.local.ceph
	$(BIN)/python -m pytest -m s3 $(GATEWAY_TESTS) $(PYTEST_ARGS)

bench: bench-peers ## measure the upload doors beside their peers; deploy/benchmarks.md says how to read it
	@exec $(BIN)/python -m deploy.bench

bench-large bench-streams bench-small bench-memory bench-latency: bench-peers # one part of it
	@exec $(BIN)/python -m deploy.bench $(@:bench-%=%)

bench-trigger: bootstrap ## measure the way from a seal to its run, and from the run's end to the job's
	@STACK_DIR=$(CURDIR)/.run/bench-stack exec $(BIN)/python -u -m deploy.bench.trigger

bench-pipeline: bench-peers ## measure the way from landed files to curated rows beside DuckDB and pandas
	@$(PYTHON) -m deploy.local.dataset
	@exec $(BIN)/python -u -m deploy.bench.pipeline

bench-peers: bootstrap
	@$(PYTHON) -m deploy.bench.install

lint: bootstrap ## ruff, mypy, import contracts
	@$(MAKE) --no-print-directory -j2 -k -Otarget lint-types lint-ruff lint-contracts

lint-types:
	$(BIN)/mypy

lint-ruff:
	$(BIN)/ruff check
	$(BIN)/ruff format --check

lint-contracts:
	$(BIN)/lint-imports

lock: bootstrap ## write the locks anew from pyproject.toml; UPGRADE=1 takes newer versions
	@deploy/local/lock $(if $(UPGRADE),--upgrade)

clean: down ## stop everything and remove what the stack has stored; environments stay
	@$(call each_stack,clean)
