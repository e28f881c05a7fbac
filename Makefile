# make demo                  a small real grid on this machine, ending with its table
# make test                  every check of the project
# make check ROOM=trainer    the checks of one room, without long tests, Ray, Slurm and S3
# All set up what they need; a first run installs for some minutes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
ROOT ?= outputs/demo
WORKERS ?= 2

.PHONY: demo test test-slurm check setup clean

demo: $(READY)
	$(BIN)/python -m orchestrator launch demo root=$(ROOT)
	$(BIN)/python -m orchestrator tables demo root=$(ROOT)
	$(BIN)/python -m orchestrator report demo root=$(ROOT)

test: $(READY)
	bash .ci/packages
	$(MAKE) check

check: $(READY)
ifdef ROOM
	$(BIN)/ruff check $(ROOM) tests
	$(BIN)/ruff format --check $(ROOM) tests
	$(BIN)/mypy -p $(ROOM)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup tests/$(ROOM) tests/test_architecture.py \
		-m 'not long and not ray and not slurm and not s3 and not pypi'
else
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup
endif

# Only what runs on a Slurm of its own, under faults.
test-slurm: $(READY)
	bash .ci/packages
	$(BIN)/python -m pytest -q -m slurm

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "No venv here; on Debian: apt-get install python3-venv"; exit 2; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $(READY)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
