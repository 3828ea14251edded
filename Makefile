# Every target makes what it needs, from Python >= 3.11 with pip and venv alone.
#   make PYTHON=/path/to/python3.12 test     another interpreter (fresh .venv only)
#   make test ARGS="tests/test_spectra.py"   arguments for the program behind a target

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
PIP := -m pip --disable-pip-version-check --no-input
ARGS ?=

ifdef PYTHON
CANDIDATES := "$(PYTHON)"
else
CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3 python
endif

# $(call create,DIRECTORY): a virtual environment of the first interpreter that will do.
define create
@for python in $(CANDIDATES); do \
	if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
		>/dev/null 2>&1; then \
		echo "==> Creating $(1) with $$("$$python" --version) ($$python)"; \
		"$$python" -m venv --clear "$(1)" || { rm -rf "$(1)"; exit 1; }; \
		exit 0; \
	fi; \
done; \
echo 'No Python >= 3.11 with the venv and ensurepip modules among:' $(CANDIDATES) >&2; \
echo 'Install one (Debian, Ubuntu: python3.11 and python3.11-venv), or name it:' >&2; \
echo '  make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)' >&2; \
exit 1
endef

# $(call extra,NAME): this checkout, editable, with one extra at the tested versions.
define extra
@echo '==> Installing jaxrelu[$(1)] into $(VENV) (about 0.5 GB; minutes the first time)'
$(PY) $(PIP) install --constraint constraints.txt --editable '.[$(1)]'
@touch $@
endef

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | \
		while IFS='|' read -r name text; do printf '%-22s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: $(VENV)/.all ## spectrum, theory and gradient descent on real data; writes out/
	@echo '==> Running examples/quickstart.py'
	$(PY) examples/quickstart.py $(ARGS)

.PHONY: test
test: $(VENV)/.test ## the whole test suite, both precisions, types checked
	@echo '==> Running the tests'
	@$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
		$(ARGS)

.PHONY: lint
lint: $(VENV)/.lint ## ruff (rules and format) and pyright
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright --pythonpath $(PY)

.PHONY: docs
docs: $(VENV)/.docs ## the site, into site/; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

.PHONY: bench
bench: $(VENV)/.bench ## the benchmark table, beside those peers that are installed
	$(PY) benchmarks/jacobian_spectrum.py $(ARGS)

.PHONY: bench-scaling
bench-scaling: $(VENV)/.bench ## time against n, k and d, with fitted exponents
	$(PY) benchmarks/scaling.py $(ARGS)

.PHONY: bench-hessian
bench-hessian: $(VENV)/.bench ## Hessians and critical points, beside the same peers
	$(PY) benchmarks/population_hessian.py $(ARGS)

.PHONY: bench-minimizers
bench-minimizers: $(VENV)/.bench ## Hessian spectra at minimisers, beside jax.hessian and eigh
	$(PY) benchmarks/minimizer_spectra.py $(ARGS)

.PHONY: bench-seminorm
bench-seminorm: $(VENV)/.bench ## exact Sobolev semi-norms, beside programs and sampling
	$(PY) benchmarks/seminorm.py $(ARGS)

.PHONY: bench-sweep
bench-sweep: $(VENV)/.bench ## many trainings at once, beside the same peers
	$(PY) benchmarks/sweep.py $(ARGS)

.PHONY: bench-peers
bench-peers: .venv-peers/.installed .venv-nt/.installed ## what the benchmark compares with

.PHONY: clean
clean: ## remove everything that make made
	rm -rf .venv .venv-peers .venv-nt out site dist build
	rm -rf .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -path ./.git -prune -o -name __pycache__ -prune -exec rm -rf {} +

# Each extra has a stamp; a second call finds it and installs nothing. The
# environment is remade when its interpreter has gone.
$(PY):
	$(call create,$(VENV))

STAMPS := $(addprefix $(VENV)/.,all test docs bench)
$(STAMPS): $(VENV)/.%: $(PY) pyproject.toml constraints.txt
	$(call extra,$*)

$(VENV)/.lint: $(PY) pyproject.toml constraints.txt
	$(call extra,dev)

# Peers live apart: they want other versions than ours. On Linux, torch's wheel for CPU
# alone comes from an index of its own; give it through PIP_EXTRA_INDEX_URL to save 3 GB.
.venv-peers/.installed: Makefile
	$(call create,.venv-peers)
	.venv-peers/bin/python $(PIP) install 'torch==2.13.0' 'nngeometry==0.4' \
		'curvlinops-for-pytorch==3.0.1'
	@touch $@

# neural-tangents declares TensorFlow, which only its `experimental` module imports.
# The benchmark puts an empty module in that one's place.
.venv-nt/.installed: Makefile
	$(call create,.venv-nt)
	.venv-nt/bin/python $(PIP) install 'jax==0.4.25' 'jaxlib==0.4.25' 'numpy<2' \
		'scipy<1.13' 'frozendict>=2.3.8' flatbuffers
	.venv-nt/bin/python $(PIP) install --no-deps 'neural-tangents==0.6.5'
	@touch $@
