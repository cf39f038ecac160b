# kvmscope: `make run` opens the tool, `make test` checks it. Both make their own .venv, once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
FILE   ?=
JOBS   ?= 2

.PHONY: run test test-fast lint bench install clean pictures

run: $(VENV)/.installed
	@$(BIN)/kvmscope $(FILE)

test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -n $(JOBS)

# The same without the slow ones: what CI repeats under a second hash seed.
test-fast: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -n $(JOBS) -m "not slow"

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m benchmarks

# Pictures of README and docs, drawn by the app itself.
pictures: $(VENV)/.installed-dev
	@$(BIN)/python -m docs.pictures

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@./tools/venv.sh "$(PYTHON)" "$(VENV)" .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml
	@./tools/venv.sh "$(PYTHON)" "$(VENV)" ".[dev]"
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
