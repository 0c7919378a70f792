# Two commands on a fresh machine do everything, set-up included: `make demo` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
# Packages are installed uncompiled (most of their modules are never imported), so what is imported must be kept.
unexport PYTHONDONTWRITEBYTECODE

KAFKA_TESTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/kafka tests/local_stack --cov --cov-config=tests/kafka/coverage.toml --cov-report=term

.PHONY: demo test up down kafka-tests kafka faults lint setup clean

## demo: simulate a log of a real catalogue, replay it with every model, write a report
demo: $(READY)
	$(BIN)/prectr demo

# A broker and five processes a test, two tests at a time on two cores: in make test, one that fails is run once more, and
# told. make kafka-tests runs each once.
## test: ruff, mypy and pytest with coverage; the tests on a real Kafka after the others, with the coverage of its processes
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --ignore=tests/kafka --ignore=tests/local_stack --cov --cov-report=term
	$(KAFKA_TESTS) -m "not long" --reruns 1 --rerun-show-tracebacks -rR

## up: the whole live system in the background: Kafka, two stream processes, trainer, monitor, Prometheus, a demo log
up: $(READY)
	@$(BIN)/python -m prectr.ops.local_stack up

## down: end all that make up has started; the data stays in up-run for the next make up
down:
	@test ! -x $(BIN)/python || $(BIN)/python -m prectr.ops.local_stack down

## kafka-tests: the tests on a real Kafka alone, those of make up among them, all of them
kafka-tests: $(READY)
	$(KAFKA_TESTS)

## kafka: fetch Apache Kafka with Maven into .kafka, for the tests on a real one; KAFKA_HOME and ../shared/kafka go first
kafka: .kafka/libs

.kafka/libs: testkit/kafka/pom.xml testkit/kafka/log4j2.yaml
	@command -v java >/dev/null && command -v mvn >/dev/null || { echo "make kafka needs Java 17 and Maven (Debian: apt install maven openjdk-17-jre-headless); or unpack Apache Kafka 4 and set KAFKA_HOME to it" >&2; exit 1; }
	rm -rf .kafka
	mvn -q -B -f testkit/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/.kafka/fetched
	cp testkit/kafka/log4j2.yaml .kafka/
	mv .kafka/fetched .kafka/libs

## faults: 200 faults against the whole live system on a real Kafka; the table goes to bench/results/faults.md
faults: $(READY)
	$(BIN)/python -m tests.faults --faults 200 --write --keep-going

## lint: ruff and mypy alone
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## setup: make .venv, or bring it up to date
setup: $(READY)

# Everything is pinned, so the first step need not resolve anything; the second adds what only this
# platform needs (the CUDA libraries of torch, for instance) and the project itself.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}. Name another: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --prefer-binary --no-deps -r constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile --prefer-binary --no-build-isolation -c constraints.txt -e '.[dev]'
	touch $@

## clean: remove what set-up, tests and the demo have made
clean:
	rm -rf .venv .kafka demo-run up-run .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
