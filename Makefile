# make run    the main job on built-in data: minutes, then a table and one page to open in a browser
# make test   lint, types and tests; UNIPEN62=/path/to/unipen62.npz make test: on that archive too
# make paper  the paper's experiments, verdicts on its claims and a report; SCALE=smoke (minutes), small, medium or paper; see docs/paper.md
# make comparison CLIENT_DATA=femnist.npz   compares the methods (configs/femnist/comparison.toml): many hours
# make benchmark   speed compared with the alternatives, growth, the parts of a round, a picture: about 25 minutes;
#             peers take part if benchmarks/peers/environments.py has installed them
# make compare BESIDE=DIR    speed and start-up of this checkout compared with another one: about 15 minutes
# make stress faults of every kind at every moment of a run, 3,000 malformed inputs and 215 to the program itself,
#             three workers, some of which fail, memory over 2,000 rounds and with 10,000 clients, 18 environments, 200
#             runs that are killed at random: some hours; records in docs/reliability
# make draw RUN=runs/…    a page to draw on, in a browser: the run's model learns your handwriting; FLAGS=--train makes a run first
# make worker FLAGS=--port=8000    a worker for --workers of runs on other machines
# make docs   these pages as a site in site/, with search and pages from docstrings; installs into .venv-docs (once)
# All make .venv first. Another Python: make PYTHON=/path/to/python3.11 run

# With these, `python -m …` would not find the project, or TensorFlow would not find docstrings
unexport PYTHONSAFEPATH PYTHONOPTIMIZE

PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV ?= .venv
INSTALLED := $(VENV)/installed
SCALE ?= smoke
# The shell reads the paths RUN, BESIDE and CLIENT_DATA as they are, quotes and all: make exports what it is given.
# More flags for `make run`, such as FLAGS="--seed=2 --method=reptile"; for `make benchmark`, FLAGS="--output_dir=DIR"
FLAGS ?=
# The run directory of `make draw`
RUN ?=
# The other checkout of `make compare`
BESIDE ?=

# The archive of `make comparison`
CLIENT_DATA ?=

# The runs whose memory `make stress` watches: many short rounds, and many clients
SHORT_ROUNDS := --model=linear --local_epochs=1 --personalization_epochs=1 --strategies=fine_tune --noplots
MANY_ROUNDS := $(SHORT_ROUNDS) --rounds=2000 --num_clients=60 --clients_per_round=5 --rounds_per_evaluation=200 \
	--evaluation_clients=5 --at=10,100,250,500,1000,1500,2000
MANY_CLIENTS := $(SHORT_ROUNDS) --rounds=8 --num_clients=10000 --clients_per_round=1000 --test_clients=1000 \
	--rounds_per_evaluation=4 --evaluation_clients=100 --at=1,2,3,4,5,6,7,8

.PHONY: run test lint paper comparison benchmark compare stress draw worker docs clean

run: $(INSTALLED)
	@$(VENV)/bin/python run_experiment.py --flagfile=configs/quick.flags $(FLAGS)

test: lint
	$(VENV)/bin/python -m pytest -n auto --dist loadfile

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

paper: $(INSTALLED)
	@$(VENV)/bin/python -m tff_personalization.tools.paper --scale=$(SCALE) $(FLAGS)

comparison: $(INSTALLED)
	@$(VENV)/bin/python run_experiment.py --flagfile=configs/femnist/common.flags --sweep=configs/femnist/comparison.toml \
		--client_data="$$CLIENT_DATA" $(FLAGS)

benchmark: $(INSTALLED)
	$(VENV)/bin/python -m benchmarks.speed $(FLAGS)
	$(VENV)/bin/python -m benchmarks.growth $(FLAGS)
	$(VENV)/bin/python -m benchmarks.profile_round $(FLAGS)
	$(VENV)/bin/python -m benchmarks.plot $(FLAGS)

compare: $(INSTALLED)
	$(VENV)/bin/python -m benchmarks.speed --beside="$$BESIDE" --tasks=training,text,evaluation --repetitions=7 \
		--contenders ours before raw stock "pytorch, processes" $(FLAGS)
	$(VENV)/bin/python -m benchmarks.start_up --beside="$$BESIDE" $(FLAGS)

stress: $(INSTALLED)
	$(VENV)/bin/python -m tests.stress.bad_input --each=300 --output=docs/reliability/bad_input.csv
	$(VENV)/bin/python -m tests.stress.bad_commands --each=10 --output=docs/reliability/bad_commands.csv
	$(VENV)/bin/python -m benchmarks.scale_out --output_dir=docs/reliability
	$(VENV)/bin/python -m benchmarks.memory $(MANY_ROUNDS) --output=docs/reliability/memory_rounds.csv
	$(VENV)/bin/python -m benchmarks.memory $(MANY_CLIENTS) --output=docs/reliability/memory_clients.csv
	$(VENV)/bin/python -m tests.stress.random_faults --faults=100 --output=docs/reliability/faults.csv
	$(VENV)/bin/python -m tests.stress.environments --output=docs/reliability/environments.csv
	$(VENV)/bin/python -m tests.stress.soak --runs=200 --output=docs/reliability/soak.csv

draw: $(INSTALLED)
	@$(VENV)/bin/python -m tff_personalization.draw $${RUN:+"$$RUN"} $(FLAGS)

worker: $(INSTALLED)
	@$(VENV)/bin/python -m tff_personalization.execution.worker $(FLAGS)

docs: $(INSTALLED) .venv-docs/installed
	@.venv-docs/bin/python docs/site.py
	@echo "To read it with search: python3 -m http.server --directory site"

.venv-docs/installed: requirements-docs.txt
	@"$(PYTHON)" -m venv .venv-docs
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-docs.txt
	@touch .venv-docs/installed

$(INSTALLED): requirements.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "Error: Python 3.11 is needed (TensorFlow Federated takes 3.9 to 3.11, the locked packages 3.11), and '$(PYTHON)' is not it: name one with make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; }
	@echo "Installing into $(VENV): some 2 minutes and 3 GB, once"
	@rm -rf $(VENV)
	@"$(PYTHON)" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile -r requirements.txt
	@# On all cores, unlike pip. Some packages have files that are not for this Python.
	@$(VENV)/bin/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $(INSTALLED)

clean:
	rm -rf $(VENV) .venv-docs build site .pytest_cache .ruff_cache .mypy_cache
