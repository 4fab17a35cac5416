# make up      start the whole service on this machine and print its link
# make test    set up and run the tests
#
# STATE=DIR  PORT=N  CONFIG=FILE  TORCH_INDEX=FOLDER_OR_INDEX  PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

UP_FLAGS := $(if $(STATE),--state $(STATE)) $(if $(PORT),--port $(PORT)) $(if $(CONFIG),--config $(CONFIG)) \
            $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))
SETUP_FLAGS := $(if $(CONFIG),--config $(CONFIG)) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

.PHONY: up setup down status doctor test test-all test-browser lint format bench screenshot clean help

help:
	@sed -n '1,5s/^# //p' Makefile

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
	$(BIN)/pytest -m "not full_runtime and not slow and not docker"

test-all: $(STAMP)
	@$(BIN)/minicolab setup --tests $(SETUP_FLAGS)
	@$(BIN)/minicolab setup --environment minimal --tests
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd images/runtime && ../../$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist hub/labextension hub/static/drive .mypy_cache .ruff_cache .pytest_cache
