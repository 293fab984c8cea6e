# Everything sets itself up in .venv with a python >= 3.10 of this machine (PYTHON=… chooses another).
.DEFAULT_GOAL := help
.PHONY: demo test bench help
.DELETE_ON_ERROR:

VERSIONS := python3.11 python3.12 python3.13 python3.10 python3 python
WORKS := -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
ifndef PYTHON
PYTHON := $(firstword $(foreach python,$(VERSIONS),$(shell $(python) $(WORKS) && echo $(python))))
endif
TORCH ?= torch==2.13.0
RUN := .venv/bin/python
READY := .venv/.ready

demo: $(READY)  ## train the φ⁴ sampler, compare it with HMC, draw figures (76 s of CPU after installation)
	PYTHONPATH=. $(RUN) examples/demo.py

test: $(READY)  ## run all tests but the slow statistical ones, a file on each core
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile

bench: $(READY)  ## regenerate every figure quoted in the README, as one table
	PYTHONPATH=. $(RUN) benchmarks/all.py

help:  ## show this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "make %-8s %s\n", $$1, $$2}'

$(READY): setup.cfg constraints.txt
	@test -n "$(PYTHON)" || { echo "expected a python >= 3.10, found none: install one, or pass PYTHON=…" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q $(TORCH)
	.venv/bin/pip install -q -c constraints.txt -e '.[dev,hdf5]'
	@touch $@
