# Every target sets up what it needs: .venv, the dependencies and the compiled extension.
# A second call does no set-up work. `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo test test-rust test-python test-slow test-chain test-torch test-flower planted notebooks lint format bench bench-hash bench-ledger bench-torch bench-ranks bench-replay bench-hunt bench-tolerance gpu wasm ptx ptx-check sanitize fuzz mutants contracts wheel wheel-test docs deny clean

PYTHON ?= python3
# `make TORCH=cpu ...` takes the CPU build of torch from PyTorch's own index instead of PyPI's.
TORCH ?=

BIN := $(CURDIR)/.venv/bin
UV := $(BIN)/uv pip install --python $(BIN)/python
MATURIN := env -u CONDA_PREFIX VIRTUAL_ENV=$(CURDIR)/.venv PATH="$(BIN):$$PATH" $(BIN)/maturin

PTX := $(BIN)/uv run --quiet --no-project --python $(BIN)/python tools/ptx.py

CHAIN := PATH="$(CURDIR)/contracts/node_modules/.bin:$$PATH"
ANALYSE := $(CHAIN) $(BIN)/uv run --quiet --no-project --python $(BIN)/python --with-requirements requirements.txt

# Build scripts are not instrumented when a target is named.
HOST = $(shell rustc --print host-tuple)
COVERAGE := -Cpasses=sancov-module $(addprefix -Cllvm-args=-sanitizer-coverage-,level=4 \
	inline-8bit-counters pc-table trace-compares)

# The verifier for browsers, where `counterfoil report` finds it.
VERIFIER := python/counterfoil/report/verifier.wasm
BUILD_VERIFIER = cargo build --quiet --package counterfoil-wasm --target wasm32-unknown-unknown --profile wasm && \
	cp target/wasm32-unknown-unknown/wasm/counterfoil_wasm.wasm $(VERIFIER)

RUST_SOURCES := Cargo.toml Cargo.lock $(wildcard contracts/artifacts/*) \
	$(shell find src crates -type f -not -path '*/target/*')
PYTHON_SOURCES := README.md $(shell find python -type f -not -name '*.so' -not -name '*.wasm' -not -path '*/__pycache__/*')
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

export UV_HTTP_TIMEOUT ?= 600
# Idle OpenMP threads must not spin while another process of a test computes.
export OMP_WAIT_POLICY ?= passive

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' \
		| while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

setup: .venv/.extension ## Make .venv, install the dependencies, compile the extension

demo: .venv/.extension ## The main job in miniature: record, anchor, verify, refute two kinds of lie
	@$(BIN)/counterfoil demo

test: test-rust test-python ## All quick tests: Rust and Python

test-rust: ## Tests of the core and the development chain
	cargo test --workspace --exclude counterfoil-python --quiet

test-python: .venv/.extension dist/.wheel ## Tests through Python, with independent oracles
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile -m 'not slow'

test-slow: .venv/.extension ## The tests that train for long or in many processes: trainers, ranks, restarts (20 minutes)
	$(BIN)/python -m pytest -q -n auto --maxprocesses 2 --dist loadfile -m slow

# Halmos passes with a warning when it left paths out, and that is no proof.
test-chain: .venv/.extension ## The contracts: forge, halmos, slither, gas, the Rust core, anvil (x86-64 Linux with npm)
	cd contracts && npm ci --no-audit --no-fund && npm run check
	cd contracts && $(CHAIN) forge test
	@cat contracts/snapshots/Gas.json
	mkdir -p target/slither
	cd contracts && $(ANALYSE) halmos --match-contract Symbolic --forge-build-out ../target/forge/out --loop 64 \
		--solver-timeout-branching 0 | tee ../target/forge/halmos.log
	! grep -q loop-bound target/forge/halmos.log
	cd contracts && FOUNDRY_PROFILE=sources $(ANALYSE) slither . --fail-none --json - \
		> ../target/slither/report.json 2> ../target/slither/log || { cat ../target/slither/log >&2; exit 1; }
	node contracts/findings.mjs target/slither/report.json
	cargo test --package counterfoil-devchain --quiet
	$(BIN)/python -m pytest -q -rs tests/python/integration/test_anvil.py tests/python/integration/test_anchor_to.py \
		tests/python/integration/test_outbox*.py tests/python/integration/test_contracts.py \
		tests/python/integration/test_demo_market.py::test_on_anvil

# The last is skipped without anvil: `make test-chain` brings it.
crash: .venv/.extension ## Kill and starve: 1,000 recordings on a forgetful disk, 2,000 faulty nodes, 200 anchors (Linux)
	CRASH_KILLS=1000 cargo test --release --quiet --test crash
	OUTBOX_SCHEDULES=2000 cargo test --release --quiet --package counterfoil-devchain --test outbox -- --nocapture --include-ignored
	cargo test --release --quiet --package counterfoil-devchain --test http -- --ignored
	OUTBOX_KILLS=100 $(BIN)/python -m pytest -q -rs -s tests/python/integration/test_outbox_kills.py
	RESUME_KILLS=8 $(BIN)/python -m pytest -q -s tests/python/integration/test_resume.py -k killed_anywhere

test-torch: .venv/.extension ## The recorder's tests under another torch (VERSION=2.9.1; about 3 GB)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python target/torch
	$(BIN)/uv pip install --quiet --python target/torch/bin/python --requirements pyproject.toml --extra dev \
		'torch==$(or $(VERSION),2.9.1)'
	PYTHONPATH=python target/torch/bin/python -m pytest -q $(addprefix tests/python/integration/test_, \
		applied.py attach.py late_receipts.py device.py resume.py data.py budget.py replay.py)

# flwr wants older versions of packages that the other tests have, and brings some that warn of each other.
test-flower: .venv/.extension ## Federated training with Flower, in an environment of its own (2 minutes, 0.4 GB)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python target/flower
	$(BIN)/uv pip install --quiet --compile-bytecode --python target/flower/bin/python 'flwr$(if $(VERSION),==$(VERSION),>=1.39)' \
		'pytest>=8.3' 'pytest-timeout>=2.3' 'scikit-learn>=1.5'
	FLWR_TELEMETRY_ENABLED=0 PYTHONPATH=python target/flower/bin/python -m pytest -q tests/flower \
		-W default::DeprecationWarning

planted: .venv/.extension ## Plant 372 changes into trainings and locate each (4 minutes; ROUNDS=2 SEED=5 ONLY=gradient-told)
	PLANTED_ROUNDS=$(or $(ROUNDS),1) PLANTED_SEED=$(or $(SEED),1) PLANTED_ONLY=$(ONLY) $(BIN)/python -m pytest -q tests/planted

notebooks: .venv/.extension ## Execute every notebook
	@for notebook in $(NOTEBOOKS); do \
		PATH="$(BIN):$$PATH" $(BIN)/jupyter-execute --timeout=300 "$$notebook"; done

lint: .venv/.extension ## Formatting, lints, types, import rules, the pure core, contract artifacts
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo clippy --package counterfoil --no-default-features --quiet -- -D warnings
	cargo test --package counterfoil --test architecture --quiet
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=python $(BIN)/python -m mypy.stubtest counterfoil._native
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/python/unit/test_repository.py

format: .venv/.extension ## Format the Rust and Python sources
	cargo fmt --all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.extension ## Measure a recorded step; writes benches/results and prints BENCHMARKS.md's table
	$(BIN)/python benches/bench.py

bench-hash: .venv/.extension ## Measure hashing beside its rivals (6 minutes; FILE=8: an 8 GiB file too)
	cargo bench --quiet --bench sha3 --no-run
	$(BIN)/python benches/hashing.py --file $(or $(FILE),2)

bench-torch: .venv/.extension ## Measure what recording adds to PyTorch's steps (20 minutes; SHARE=0.3: less)
	$(BIN)/python benches/recorder.py --share $(or $(SHARE),1)

bench-ranks: .venv/.extension ## Measure what recording adds to the steps of two ranks (5 minutes; SHARE=0.1: less)
	$(BIN)/python benches/ranks.py --share $(or $(SHARE),1)

bench-replay: .venv/.extension ## Measure replaying steps beside training them plainly (4 minutes)
	$(BIN)/python benches/replay.py

bench-hunt: .venv/.extension ## Measure a hunt for nondeterminism beside torch's DebugMode (12 minutes; ROUNDS=1: 4)
	$(BIN)/python benches/hunt.py --rounds $(or $(ROUNDS),3)

bench-tolerance: .venv/.extension ## Measure what tolerance accepts and refuses (25 minutes; SHARE=0.05: 4; OLDER=2.9.1: that torch's trainings too, 3 GB)
	$(if $(OLDER),$(BIN)/uv venv --quiet --clear --python $(BIN)/python target/older)
	$(if $(OLDER),$(BIN)/uv pip install --quiet --python target/older/bin/python --requirements pyproject.toml --extra demo \
		'torch==$(OLDER)')
	$(BIN)/python benches/tolerance.py --share $(or $(SHARE),1) $(if $(OLDER),--older target/older/bin/python)

bench-ledger: .venv/.extension ## Measure a ledger of a million receipts (10 minutes; RECEIPTS=20000: less)
	$(BIN)/python benches/ledger.py --receipts $(or $(RECEIPTS),1000000)

# On a machine with a GPU and without a compiler or a network, a wheel in dist/ is enough.
gpu: $(if $(DRY),.venv/.extension) ## Check and measure hashing on an NVIDIA GPU (9 minutes; DRY=1: on the CPU, in small)
ifdef DRY
	$(BIN)/python benches/gpu --dry $(if $(ONLY),--only $(ONLY))
else
	@if ! $(PYTHON) -c 'import counterfoil.cuda' 2> /dev/null; then \
		rm -rf target/gpu; \
		$(PYTHON) -m pip install --quiet --no-index --no-deps --target target/gpu dist/counterfoil-*.whl; \
		export PYTHONPATH="$(CURDIR)/target/gpu$${PYTHONPATH:+:$$PYTHONPATH}"; \
	fi; \
	$(PYTHON) benches/gpu $(if $(ONLY),--only $(ONLY)) $(if $(RESULTS),--results $(RESULTS))
endif

wasm: .venv/.extension ## Build the verifier for browsers and compare it with the native one (needs rustup and node)
	rustup target add wasm32-unknown-unknown
	$(BUILD_VERIFIER)
	$(BIN)/python -m pytest -q -rs tests/python/integration/test_wasm.py tests/python/integration/test_report.py

sanitize: ## The hashing tests under AddressSanitizer (x86-64 Linux)
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --release --quiet --test hashing \
		--target x86_64-unknown-linux-gnu --target-dir target/sanitized

# A stable toolchain can instrument: these are LLVM's options, not rustc's unstable ones.
fuzz: ## Fuzz every parser of outside bytes, guided by coverage (SECONDS=60; needs a C++ compiler)
	@command -v "$${CXX:-c++}" > /dev/null || { echo 'make fuzz needs a C++ compiler (libFuzzer is C++): install g++ or set CXX' >&2; exit 1; }
	RUSTFLAGS='$(COVERAGE)' cargo build --release --quiet --manifest-path fuzz/Cargo.toml \
		--target-dir target/fuzz --target $(HOST)
	target/fuzz/$(HOST)/release/counterfoil-fuzz $(or $(SECONDS),60) $(ONLY)

# The list has one line for each place in the source at which a fault went unnoticed.
mutants: ## Put faults into the core, list those no Rust test notices (ONLY=src/receipt; needs cargo-mutants)
	@command -v cargo-mutants > /dev/null || { echo 'make mutants needs cargo-mutants: cargo install cargo-mutants' >&2; exit 1; }
	@CARGO_TARGET_DIR=$(CURDIR)/target/mutants cargo mutants --output target $(if $(ONLY),--re '^$(ONLY)') \
		|| case $$? in 2 | 3) ;; *) exit 1 ;; esac
	@cd target/mutants.out && missed=$$(wc -l < missed.txt) && noticed=$$(cat caught.txt timeout.txt | wc -l) && \
		cat missed.txt && echo "$$noticed of $$((noticed + missed)) faults were noticed"

ptx: .venv/.dependencies ## Compile the CUDA sources to the PTX that is committed (x86-64 Linux)
	$(PTX) build

ptx-check: .venv/.dependencies ## Compile them anew, compare, and check the machine code for every architecture
	$(PTX) check

contracts: ## Compile the contracts anew and compare with the committed artifacts (needs npm)
	cd contracts && npm ci --no-audit --no-fund && npm run build
	git diff --exit-code --stat contracts/artifacts crates/devchain/tests/vectors

wheel: dist/.wheel ## Build the wheel into dist/

wheel-test: .venv/.extension ## Build the wheel twice, compare, use it without Rust in other Pythons, run the starter kit
	$(BIN)/python tools/wheel_test.py

docs: .venv/.extension ## Build the documentation into target/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=python $(BIN)/python -m mkdocs build --strict

deny: ## Licences, sources and advisories of the Rust dependencies (needs cargo-deny)
	cargo deny check

clean: ## Remove .venv and everything built
	rm -rf .venv dist target .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find python -name '*.so' -delete -o -name '*.wasm' -delete

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
		"Counterfoil needs Python 3.11 or newer; say which with make PYTHON=...")'
	@command -v cargo > /dev/null || { echo 'Counterfoil needs a Rust toolchain (cargo)' >&2; exit 1; }
	@echo 'Making .venv'
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet uv
	@# A torch that $(PYTHON) can import is reused: its folder comes last on the new path.
	@$(PYTHON) -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' 2> /dev/null \
		> "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch.pth" || true
	@touch $@

.venv/.dependencies: pyproject.toml | .venv/.python
	@$(UV) --quiet --requirements pyproject.toml --extra dev --extra docs --extra trainers --overrides tools/torch-later.txt
	@if $(BIN)/python -c 'import torch' 2> /dev/null; then \
		echo 'torch: using the one that is installed'; \
	elif [ '$(TORCH)' = cpu ]; then \
		echo 'torch: downloading the CPU build from the PyTorch index (about 0.2 GB, 0.8 GB on disk)'; \
		$(UV) --requirements pyproject.toml --extra torch --torch-backend cpu; \
	else \
		echo 'torch: downloading from PyPI; on Linux with CUDA libraries about 3 GB (5.4 GB on disk).'; \
		echo '       Smaller: make TORCH=cpu. A torch that $(PYTHON) can import is reused.'; \
		$(UV) --requirements pyproject.toml --extra torch; \
	fi
	@# Where nothing writes bytecode, every process of a test would compile torch anew, for seven seconds.
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c 'import compileall, sysconfig; \
		compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2, workers=0)'
	@touch $@

.venv/.extension: $(RUST_SOURCES) pyproject.toml .venv/.dependencies
	@echo 'Compiling the extension (about three minutes the first time)'
	@$(MATURIN) develop --release --quiet --uv
	@touch $@

# Without rustup and the target for WebAssembly the pages that this wheel writes check nothing, as they say.
dist/.wheel: .venv/.extension $(PYTHON_SOURCES)
	@rm -rf dist
	@if rustup target list --installed 2> /dev/null | grep -q wasm32-unknown-unknown; then $(BUILD_VERIFIER); \
	else echo 'the wheel gets no verifier for browsers: there is no rustup or no target wasm32-unknown-unknown'; fi
	@$(MATURIN) build --release --quiet --out dist
	@touch $@
