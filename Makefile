# The two commands of the README are `make demo` and `make test`; both work from a bare clone
# with Python 3.11 or newer and make: they build a virtual environment in .venv and install into it.

# The first of these that is new enough and can build a virtual environment; make PYTHON=... names
# another. Each is run, for a name may be there and fail: pyenv has one for versions not in use.
PYTHONS := python3.14 python3.13 python3.12 python3.11 python3
NEW_ENOUGH := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in $(PYTHONS); do \
	$$python -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo $$python; break; }; done)
VENV   := .venv
BIN    := $(VENV)/bin
SOURCES := clients quorum broker proto tests bench deploy examples

SEEDS      ?= 300
FIRST_SEED ?= 0
SEED       ?=
# Seeds of the quorum alone, which cost a fifth of a whole cluster's; STATE: a file to go on from.
QUORUM_SEEDS = $(if $(filter file default undefined,$(origin SEEDS)),700,$(SEEDS))
STATE      ?=
FLIPS      ?= 10000
REQUESTS   ?= 1000000

# Every node that a test or the demo starts would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test soak lint check proto docs sim sim-quorum sim-raft sim-groups sim-group-machine crash-points power-cuts bit-flips mutants fuzz-kafka kafka-tools compat-ci package-test container-test bench clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || { python='$(PYTHON)'; test -n "$$python" || \
		{ echo 'No Python of 3.11 or newer that has the module venv is in PATH (tried:' \
			'$(PYTHONS)). Install one, or name it: make PYTHON=/path/to/python' >&2; exit 1; }; \
		$$python -m venv $(VENV); }
	@echo 'Installing into $(VENV); this takes a minute or more.'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,demo]'
	@touch $@

demo: setup
	@$(BIN)/quorate demo $(ARGS)

# One worker more than a small machine has cores: some tests wait for processes.
test: setup
	$(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

# The same tests with many more seeds, points and bits where the number proves no new rule.
soak: setup
	SOAK=1 $(BIN)/python -m pytest -n 3 --dist worksteal --timeout 600 $(or $(ARGS),tests/simulation tests/unit)

lint: setup
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/house

check: lint test

proto: setup
	proto/generate.sh
	$(BIN)/python -m proto.kafka.generate

docs: setup
	@$(BIN)/python -m tests.house.configuration_page > docs/configuration.new && mv docs/configuration.new docs/configuration.md
	@$(BIN)/python -m tests.house.commands_page > docs/commands.new && mv docs/commands.new docs/commands.md
	@$(BIN)/python -m tests.docs.errors_page > docs/errors.new && mv docs/errors.new docs/errors.md
	@$(BIN)/python -m tests.house.kafka_requests
	@$(BIN)/python -m tests.compat.page
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

sim: setup
	@$(BIN)/python -m tests.simulation.run $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --first-seed $(FIRST_SEED)) $(if $(STATE),--state $(STATE)) $(ARGS)

mutants: setup
	@$(BIN)/python -m tests.mutants.run $(ARGS)

sim-quorum: setup
	@$(BIN)/python -m tests.simulation.quorum_run $(if $(SEED),--seed $(SEED),--seeds $(QUORUM_SEEDS) --first-seed $(FIRST_SEED)) $(if $(STATE),--state $(STATE)) $(ARGS)

sim-group-machine: setup
	@$(BIN)/python -m tests.simulation.group_machine_run $(if $(SEED),--seed $(SEED),--seeds $(if $(filter file default undefined,$(origin SEEDS)),2000,$(SEEDS)) --first-seed $(FIRST_SEED))

sim-raft: setup
	@$(BIN)/python -m tests.simulation.raft_run $(if $(SEED),--seed $(SEED),--seeds $(if $(filter file default undefined,$(origin SEEDS)),5000,$(SEEDS)) --first-seed $(FIRST_SEED))

sim-groups: setup
	@$(BIN)/python -m tests.simulation.group_run $(if $(SEED),--seed $(SEED),--seeds $(if $(filter file default undefined,$(origin SEEDS)),100,$(SEEDS)) --first-seed $(FIRST_SEED))

crash-points: setup
	@$(BIN)/python -m tests.simulation.quorum_crashes --seeds $(if $(filter file default undefined,$(origin SEEDS)),5,$(SEEDS)) $(ARGS)

power-cuts: setup
	@$(BIN)/python -m tests.simulation.power_cuts --seeds $(if $(filter file default undefined,$(origin SEEDS)),10,$(SEEDS)) $(ARGS)

bit-flips: setup
	@$(BIN)/python -m tests.simulation.bit_flips $(if $(SEED),--seed $(SEED),--flips $(FLIPS) --first-seed $(FIRST_SEED)) $(if $(STATE),--state $(STATE)) $(ARGS)

fuzz-kafka: setup
	@$(BIN)/python -m tests.simulation.kafka_fuzz $(if $(SEED),--seed $(SEED),--requests $(REQUESTS) --first-seed $(FIRST_SEED)) $(ARGS)

kafka-tools: setup
	@test -n '$(KAFKA)' || { echo 'Name an unpacked release of Apache Kafka: make kafka-tools KAFKA=/path/to/kafka' >&2; exit 1; }
	@$(BIN)/python -m tests.kafka.dump_log '$(KAFKA)' $(ARGS)

# Suites that other projects wrote, against Apache Kafka and then against Quorate.
SUITES  := kafka-tools streams connect kafka-python clients documented librdkafka ui
SERVERS ?= kafka quorate

.PHONY: $(SUITES:%=compat-%)
$(SUITES:%=compat-%): compat-%: setup
	@$(BIN)/python -m tests.compat.run $* --servers $(SERVERS) $(ARGS)

compat-ci: setup
	@$(BIN)/python -m tests.compat.ci

package-test: setup
	@$(BIN)/python -m tests.package.run $(ARGS)

container-test: setup
	@$(BIN)/python -m tests.containers.run $(ARGS)

bench: setup
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) build dist
