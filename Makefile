# make up      start the whole service on this machine and print its link
# make test    set up and run the tests
# make cluster-up / cluster-token USER=NAME / cluster-down      the service on a Kubernetes of its own (as root, with Go)
#
# STATE=DIR  PORT=N  CONFIG=FILE  TORCH_INDEX=FOLDER_OR_INDEX  PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

UP_FLAGS := $(if $(STATE),--state $(STATE)) $(if $(PORT),--port $(PORT)) $(if $(CONFIG),--config $(CONFIG)) \
            $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))
SETUP_FLAGS := $(if $(CONFIG),--config $(CONFIG)) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

.PHONY: up setup down status doctor cluster-programs cluster-up cluster-token cluster-down test test-all test-docker test-cluster test-browser lint format bench screenshot clean help

help:
	@sed -n '1,6s/^# //p' Makefile

$(STAMP): pyproject.toml
	@sh hub/setup/environment.sh "$(PYTHON)" "$(VENV)"
	@touch $(STAMP)

venv: $(STAMP)

# The page and the proxy are built first; the runtime environment arrives while the service is already up.
up: $(STAMP)
	@$(BIN)/minicolab setup --no-environment $(SETUP_FLAGS)
	@$(BIN)/minicolab up $(UP_FLAGS)

setup: $(STAMP)
	@$(BIN)/minicolab setup $(SETUP_FLAGS)

down status doctor: $(STAMP)
	@$(BIN)/minicolab $@ $(if $(STATE),--state $(STATE))

# The default tests: everything but what needs the full runtime environment or minutes.
test: $(STAMP)
	@$(BIN)/minicolab setup --environment minimal --tests
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest -m "not full_runtime and not slow and not cluster and not docker"

test-all: $(STAMP)
	@$(BIN)/minicolab setup --tests $(SETUP_FLAGS)
	@$(HARNESS) programs
	@$(BIN)/minicolab setup --environment minimal --tests
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest

HARNESS := PYTHONPATH=tests $(BIN)/python -m cluster.harness $(if $(STATE),--state $(STATE))

# The tests on a Docker engine of their own. The first time its base image and the full runtime image (8 GB) are made, and every example
# runs in it: about ten minutes. `.venv/bin/pytest -m "docker and not full_runtime"` leaves that out; `-m "docker and scale"` builds the
# images for GPUs and TPUs, 30 GB of downloads.
test-docker: $(STAMP)
	$(BIN)/pytest -m "docker and not scale"

# A Kubernetes is made for them; the first time its programs are built, which takes about twelve minutes. A thousand starts and stops take
# five more: `.venv/bin/pytest -m "cluster and scale"`.
test-cluster: cluster-programs
	$(BIN)/pytest -m "cluster and not scale"

cluster-programs: $(STAMP)
	@$(HARNESS) programs

cluster-up: $(STAMP)
	@$(HARNESS) up $(if $(PORT),--port $(PORT))

cluster-token: $(STAMP)
	@$(HARNESS) token "$(USER)"

cluster-down: $(STAMP)
	@$(HARNESS) down

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd images/runtime && ../../$(BIN)/mypy
	MYPYPATH=tests $(BIN)/mypy -p cluster.harness
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist hub/labextension hub/static/drive .mypy_cache .ruff_cache .pytest_cache
