# The front door. `make` lists what there is; CI runs the same targets.
# Needs python3, make and git; everything else is fetched into .run, .venv and .venv-research.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Relative, since make takes a blank in a path for its end: the folder may have any name.
UV := $(or $(shell command -v uv 2>/dev/null),.run/uv/bin/uv)
COMPOSE = $(or $(shell docker compose version >/dev/null 2>&1 && echo "docker compose"),$(shell command -v docker-compose 2>/dev/null),$(error neither `docker compose` nor `docker-compose` is installed: `make run` needs no Docker))

# A text as one word of the shell, whatever is in it: blanks, quotes, dollars.
quoted = '$(subst ','\'',$(1))'

PYTHON := .venv/bin/python
# The same as .venv/bin/qlib-crypto, which holds the path of this folder and so does not survive its move.
QLIB_CRYPTO := $(PYTHON) -m cli
RESEARCH := .venv-research/bin/python
QLIB = $(or $(QLIB_DIR),qlib_data)
# A notebook runs in its own folder, so both are absolute; runs of both kinds are kept in one place.
RESEARCH_PATHS = QLIB_DIR=$(call quoted,$(if $(filter /%,$(QLIB)),$(QLIB),$(CURDIR)/$(QLIB))) EXPERIMENTS_DIR=$(call quoted,$(CURDIR)/experiments)
# Tests that run at once: most of them wait for processes, so a little more than the cores.
WORKERS ?= 3
GROUPS_LOCAL := ranker collector writer converter api simulator local dev docs
GROUPS_RESEARCH := research test
# A copy where the cache is on another disk, instead of a warning about it.
export UV_LINK_MODE ?= copy
# What a shell happens to have active is not ours.
unexport VIRTUAL_ENV

.PHONY: help uv env env-research run demo research workflow replay load chaos soak heal freshness faults audit bench test proof test-unit test-qlib lint types docs format up down logs ps sim-up research-up fields env-example clean

help:  ## List what there is
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

##@ Run it

run: env  ## Collect from OKX, without Docker, until Ctrl-C
	@$(QLIB_CRYPTO) run

demo: env env-research  ## The same on a simulated exchange, no internet needed: one minute, ends with a DataFrame
	@$(QLIB_CRYPTO) demo

# Said at once, not after Qlib and mlflow have been loaded.
HAS_DATASET = test -d $(call quoted,$(QLIB)/calendars) || { echo $(call quoted,QLIB_DIR=$(QLIB))": there is no dataset. A running system makes one (make run); so does make demo: QLIB_DIR=.run/demo/qlib_data MARKET=all TOPK=1"; exit 1; }

# Qlib takes a market's name without regard to case. A market of which no symbol is a member has nothing to learn from.
MARKETS = cd $(call quoted,$(QLIB)/instruments) && for file in *.txt; do test ! -s "$$file" || printf ' %s' "$${file%.txt}"; done
HAS_MARKET = market=$(call quoted,$(or $(MARKET),top50)) && test -s $(call quoted,$(QLIB)/instruments)/"$$(printf %s "$$market" | tr A-Z a-z).txt" || { echo "MARKET=$$market: "$(call quoted,QLIB_DIR=$(QLIB))" has no such market, or nothing in it; it has:$$($(MARKETS))"; exit 1; }

research: env-research  ## Jupyter with pyqlib and the research kit, for this machine only: [PORT=8888] [QLIB_DIR=qlib_data]
	@$(HAS_DATASET)
	@PYTHONPATH=$(call quoted,$(CURDIR)/research) $(RESEARCH_PATHS) $(RESEARCH) -m jupyter lab --ip=127.0.0.1 --port=$(or $(PORT),8888) $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.root_dir=$(call quoted,$(CURDIR)/research) research/from_data_to_backtest.ipynb

workflow: env-research  ## Train, backtest and report in one go: [NAME=day] or 60min, [QLIB_DIR=qlib_data] [MARKET=top50] [TOPK=5]
	@$(HAS_DATASET)
	@$(HAS_MARKET)
	@$(RESEARCH_PATHS) $(if $(MARKET),MARKET=$(call quoted,$(MARKET))) $(if $(TOPK),TOPK=$(TOPK)) $(RESEARCH) -m qlib.cli.run research/workflows/$(or $(NAME),day).yaml

replay: env env-research  ## Replay a recording and compare Qlib with it: DATA=folder [TOP_N=] [SPEED=] [KILL=1] [DOCKER=1]
	@$(if $(DATA),,$(error DATA is missing: make replay DATA=folder-with-candles_1m.parquet-and-funding.parquet))
	@$(PYTHON) -m proofs.replay --data $(call quoted,$(DATA)) $(if $(TOP_N),--top-n $(TOP_N)) $(if $(SPEED),--speed $(SPEED)) $(if $(filter-out 0,$(KILL)),--kill) $(if $(filter-out 0,$(DOCKER)),--compose)

load: env  ## What a large universe costs, on a simulated exchange: [SYMBOLS=500] [MINUTES=10]
	@$(PYTHON) -m proofs.bench.load --symbols $(or $(SYMBOLS),500) --minutes $(or $(MINUTES),10)

chaos: env env-research  ## Everything goes wrong at once, then every minute is compared: [SEED=1] [MINUTES=5] [SYMBOLS=60] [MEMBERS=] [SPEED=600] [RATE=0.8] [REPORT=file] [ONLY=words] [WITHOUT=words] [NAMES=file]
	@$(PYTHON) -m proofs.chaos --seed $(or $(SEED),1) --minutes $(or $(MINUTES),5) --symbols $(or $(SYMBOLS),60) --speed $(or $(SPEED),600) --rate $(or $(RATE),0.8) $(if $(MEMBERS),--members $(MEMBERS)) $(if $(REPORT),--report $(call quoted,$(REPORT))) $(if $(ONLY),--only "$(ONLY)") $(if $(WITHOUT),--without "$(WITHOUT)") $(if $(NAMES),--names $(call quoted,$(NAMES)))

chaos-report: env  ## Add up what several runs of chaos wrote: FILES="a.json b.json" [FAULTS=0] [CANDLES=0] [EACH=0]
	@$(if $(FILES),,$(error FILES is missing: what `make chaos REPORT=file` wrote))
	@$(PYTHON) -m proofs.chaos.report $(FILES) $(if $(FAULTS),--faults $(FAULTS)) $(if $(CANDLES),--candles $(CANDLES)) $(if $(EACH),--each $(EACH))

soak: env  ## A simulated week, to see what grows: [DAYS=7] [SYMBOLS=100] [SPEED=300] [CSV=file]
	@$(PYTHON) -m proofs.bench.soak --days $(or $(DAYS),7) --symbols $(or $(SYMBOLS),100) --speed $(or $(SPEED),300) $(if $(CSV),--csv $(call quoted,$(CSV)))

faults: env  ## Strike every fault that there is, and write into docs/faults.md how long each took to heal
	@$(PYTHON) -m proofs.faults

audit: env  ## Ask OKX again for what is stored: [SAMPLE=20] [SEED=] [BEGIN=2025-04-05] [END=] [SYMBOLS=BTC_USDT,...] [REPAIR=1] [REPORT=file.json]
	@$(QLIB_CRYPTO) audit $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED)) $(if $(BEGIN),--begin $(BEGIN)) $(if $(END),--end $(END)) $(if $(SYMBOLS),--symbols $(SYMBOLS)) $(if $(filter-out 0,$(REPAIR)),--repair) $(if $(REPORT),--json $(call quoted,$(REPORT)))

heal: env  ## How long a lost hour of a universe takes to heal, within OKX's limits: [SYMBOLS=50]
	@$(PYTHON) -m proofs.bench.heal --symbols $(or $(SYMBOLS),50)

freshness: env  ## How long after its close a minute is in Qlib, at real speed: [SYMBOLS=50] [MINUTES=5]
	@$(PYTHON) -m proofs.bench.freshness --symbols $(or $(SYMBOLS),50) --minutes $(or $(MINUTES),5)

bench: env env-research  ## What work costs, beside its peer and its floor, into docs/performance.md: [FULL=1] [ONLY="frames ledger"] [QLIB_CHECKOUT=folder]
	@$(QLIB_CRYPTO) bench $(ONLY) $(if $(filter-out 0,$(FULL)),--full) $(if $(QLIB_CHECKOUT),--qlib-checkout $(call quoted,$(QLIB_CHECKOUT)))

##@ Run it in Docker

up:  ## Build, and collect from OKX in the background
	$(COMPOSE) up --build --detach

sim-up:  ## The same on a simulated exchange, with volumes of its own
	$(COMPOSE) --profile sim up --build --detach

research-up:  ## Jupyter on the data that the containers collect: [JUPYTER_PORT=8888]; then look for the link
	$(COMPOSE) --profile research up --build --detach research
	$(COMPOSE) --profile research logs --tail 30 research

down:  ## Stop all containers; the volumes stay
	$(COMPOSE) --profile sim --profile research down

logs:  ## Follow the logs of all containers
	$(COMPOSE) --profile sim logs --follow --tail 50

ps:  ## List the containers and their health
	$(COMPOSE) --profile sim ps

##@ Check it

# Tests that share a stack are in one file, so a file stays in one process. In their order, since the longest come first.
IN_PARALLEL = --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder
SERVICES_TESTS = $(PYTHON) -m pytest --ignore=tests/qlib_format --ignore=tests/research $(IN_PARALLEL)
RESEARCH_TESTS = $(RESEARCH) -m pytest tests/qlib_format tests/research $(IN_PARALLEL)
# Runs both to their ends, whatever the first one says.
both = failed=0; $(RESEARCH_TESTS) -m $(1) || failed=1; $(SERVICES_TESTS) -m $(1) || failed=1; exit $$failed

test: env env-research  ## What checks a change, in both environments: every guarantee, in minutes
	@$(call both,"sample or not proof")

proof: env env-research  ## What `make test` leaves out: long stories of whole systems, and the full counts of what it samples
	@$(call both,proof)

test-unit: env  ## Only the tests that take seconds
	@$(PYTHON) -m pytest tests/unit -m "sample or not proof"

test-qlib: env-research  ## Only the tests in which the real pyqlib is the judge
	@$(RESEARCH) -m pytest tests/qlib_format tests/research

lint: env  ## Style, formatting, the borders between services, the lock file
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/lint-imports --no-logo
	@"$(UV)" lock --check --quiet

types: env env-research  ## Types, strictly; the research kit's in Python 3.12, beside pyqlib
	@.venv/bin/mypy
	@.venv/bin/mypy --python-version 3.12 --python-executable $(RESEARCH) --cache-dir .mypy_cache/research --package perps

docs: env  ## Build the documentation site into .run/site; a dead link fails
	@rm -rf .run/site
	@.venv/bin/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky --fresh-env --doctree-dir .run/site-cache --builder html docs .run/site
	@echo ".run/site/index.html"

##@ Work on it

env: .venv/.synced  ## The environment of the services (Python 3.13) in .venv

env-research: .venv-research/.synced  ## The environment of Qlib (Python 3.12) in .venv-research

format: env  ## Format, and mend what ruff can mend
	@.venv/bin/ruff check --fix
	@.venv/bin/ruff format

fields: env  ## Generate docs/fields.md from the table of fields
	@$(QLIB_CRYPTO) docs fields > docs/fields.md

env-example: env  ## Generate .env.example from the settings
	@$(QLIB_CRYPTO) docs env-example > .env.example

clean:  ## Remove the environments and what runs left in .run; collected data stays
	rm -rf .venv .venv-research .run .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# --- How the environments come to be

.venv/.synced: uv.lock .python-version | uv
	"$(UV)" sync --locked --python 3.13 $(addprefix --group ,$(GROUPS_LOCAL))
	@touch $@

.venv-research/.synced: uv.lock .python-version | uv
	UV_PROJECT_ENVIRONMENT=.venv-research "$(UV)" sync --locked --no-install-project --python 3.12 $(addprefix --group ,$(GROUPS_RESEARCH))
	@touch $@

# Only where no uv is installed.
uv:
	@command -v "$(UV)" >/dev/null || $(MAKE) --no-print-directory .run/uv/bin/uv

.run/uv/bin/uv:
	@python3 -m venv .run/uv || { rm -rf .run/uv; echo "python3 has no venv module: install it (Debian, Ubuntu: apt install python3-venv), or install uv yourself"; exit 1; }
	@.run/uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
