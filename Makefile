# `make` lists the targets. Everything runs in .venv, which is made when first needed.
PYTHON ?= python3
VENV := .venv
LUS := $(VENV)/bin/lus
INSTALLED := $(VENV)/installed
DEMO := cache/demo
COVID_BLUES ?= ../shared/covid-blues
BLUES := cache/covid-blues
PYTEST := $(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo covid-blues gallery test coverage lint bench gpu stress stability clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-11s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("lus needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@echo "installing into $(VENV): PyTorch is large, a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## the whole pipeline on a synthetic study, about 8 minutes on 2 cores
	$(LUS) phantom --cache $(DEMO) --patients 44 --videos 960 --size 128 --max-frames 100 --force
	$(LUS) prepare --cache $(DEMO) --size 96
	$(LUS) train --cache $(DEMO) --recipe demo --epochs 20
	$(LUS) evaluate --cache $(DEMO)
	$(LUS) attention --cache $(DEMO) --frame 1017/1048/11/86
	$(LUS) attention --cache $(DEMO)
	$(VENV)/bin/python -m tests.gallery $(DEMO) $(DEMO)/gallery

covid-blues: $(INSTALLED)  ## the default recipe, trained on every patient of COVID-BLUES
	$(LUS) import $(COVID_BLUES) --format covid-blues --cache $(BLUES) --force
	$(LUS) prepare --cache $(BLUES) --size 224 --test-share 0 --validation-share 0
	$(LUS) train --cache $(BLUES)
	@echo "lus predict VIDEOS --cache $(BLUES)  # scores new videos"

gallery: $(INSTALLED)  ## the README's pictures, from what the last demo left
	$(VENV)/bin/python -m tests.gallery $(DEMO) .readme

test: lint  ## lint, types and tests
	$(PYTEST)

coverage: $(INSTALLED)  ## lines and branches of lus_cli that the tests reach; fails under 90 %
	$(PYTEST) --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

lint: $(INSTALLED)  ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(INSTALLED)  ## speed, memory and size, as tables and in cache/bench.json
	$(VENV)/bin/python -m tests.benchmarks

gpu: $(INSTALLED)  ## speed and correctness on a CUDA machine, in 8 minutes, kept in cache/gpu.json
	$(VENV)/bin/python -m tests.benchmarks.gpu

stress: $(INSTALLED)  ## kills, full disks, hostile files, 20,000 videos, twice the same; takes an hour or more
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,stress]'
	$(VENV)/bin/python -m tests.stress.fuzz
	$(VENV)/bin/python -m tests.stress.faults
	$(VENV)/bin/python -m tests.stress.load
	$(VENV)/bin/python -m tests.stress.twice
	$(VENV)/bin/python -m tests.stress.mutation

stability: $(INSTALLED)  ## the search for the report's NaN gradients, kept in cache/stability; takes long
	$(VENV)/bin/python -m tests.benchmarks.stability

clean:  ## remove .venv and what tests left; the cache stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
