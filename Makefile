# make demo                  a small real grid on this machine: its table, pictures and report
# make test                  every check of the project
# make check ROOM=trainer    the checks of one room, without long tests, Ray, Slurm and S3
# All set up what they need; a first run installs for some minutes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
GRID ?= demo
ROOT ?= outputs/demo
# One more than two cores, since tests on Slurm, Ray and S3 often wait.
WORKERS ?= 3

.PHONY: demo test test-slurm check setup clean

# The second line brings real images where the demo trains on them; it says what to do offline.
demo: $(READY)
	@! grep -q 'recipe: earth' sweeps/tables/demo.yaml || $(BIN)/python -m datasets prepare earth
	$(BIN)/python -m orchestrator launch $(GRID) root=$(ROOT)
	$(BIN)/python -m orchestrator tables $(GRID) root=$(ROOT)
	$(BIN)/python -m orchestrator report $(GRID) root=$(ROOT)
	@echo "The table is above. The pictures side by side (PNG) and the report (HTML) are the last"
	@echo "files that were named: open them. Nothing is trained twice: make demo again shows the same."

test: $(READY)
	bash .ci/packages
	$(MAKE) check

check: $(READY)
ifdef ROOM
	$(BIN)/ruff check $(ROOM) tests
	$(BIN)/ruff format --check $(ROOM) tests
	$(BIN)/mypy -p $(ROOM)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup --no-loadscope-reorder \
		tests/$(ROOM) tests/test_architecture.py \
		-m 'not long and not ray and not slurm and not s3 and not pypi'
else
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
endif

# Only what runs on a Slurm of its own, under faults.
test-slurm: $(READY)
	bash .ci/packages
	$(BIN)/python -m pytest -q -m slurm

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) .ci/install.py $(VENV)
	@touch $(READY)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
