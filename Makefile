# `make demo` and `make test` work on a fresh machine: they set up .venv first.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
# Packages are installed uncompiled, since most modules are never imported, so Python must cache the compiled ones.
unexport PYTHONDONTWRITEBYTECODE

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: demo test test-kafka sanitize up down kafka faults pin-images lint setup clean

## demo: simulate a log of a real catalogue, replay it with every model, write a report
demo: $(READY)
	$(BIN)/prectr demo

## test: ruff, mypy, all unit tests with coverage, and with a Kafka at hand one live run with kills against its replay
test: lint
	$(PYTEST) -n 2 --dist worksteal --ignore=tests/kafka --ignore=tests/local_stack --cov --cov-report=term
	$(PYTEST) tests/kafka -m smoke -rs

# In a copy, so that the extension that everything else uses stays. Python itself frees less than it allocates, so leaks
# are not looked for; libstdc++ must be there before the first exception.
SANITIZED := build/sanitized
SANITIZERS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
## sanitize: the tests of the native core, built to stop at any wrong access and any undefined behaviour
sanitize: $(READY)
	rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	git ls-files -z --cached --others --exclude-standard -- setup.py pyproject.toml README.md LICENSE prectr state stream tests testkit \
		| xargs -0 cp --parents --no-dereference --target-directory=$(SANITIZED)
	cd $(SANITIZED) && CFLAGS="$(SANITIZERS)" LDFLAGS="-fsanitize=address,undefined" $(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace
	cd $(SANITIZED) && PRECTR_NATIVE=1 ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc OMP_NUM_THREADS=1 \
		LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so) $$(g++ -print-file-name=libstdc++.so)" \
		sh -c '$(CURDIR)/$(BIN)/python -m pytest -q tests/stream/native tests/stream/join/test_operator.py tests/stream/aggregate \
			&& $(CURDIR)/$(BIN)/python -m tests.stream.native.fuzz --seconds 60'

# Timing on a loaded machine can fail a test with a broker and five processes, so one that fails runs once more, and is
# reported.
## test-kafka: all tests on a real Kafka and of make up, with the coverage of the processes that they start
test-kafka: $(READY)
	$(PYTEST) -n 2 --dist worksteal tests/kafka tests/local_stack --reruns 1 --rerun-show-tracebacks -rR --durations 15 \
		--cov --cov-config=tests/kafka/coverage.toml --cov-report=term

## up: start the whole live system in the background: Kafka, two stream processes, trainer, monitor, Prometheus, demo log
up: $(READY)
	@$(BIN)/python -m prectr.ops.local_stack up

## down: stop everything that make up started; the data stays in up-run for the next make up
down:
	@test ! -x $(BIN)/python || $(BIN)/python -m prectr.ops.local_stack down

## kafka: fetch Apache Kafka with Maven into .kafka for the tests; KAFKA_HOME and ../shared/kafka take precedence
kafka: .kafka/libs

.kafka/libs: testkit/kafka/pom.xml testkit/kafka/log4j2.yaml
	@command -v java >/dev/null && command -v mvn >/dev/null || { echo "make kafka needs Java 17 and Maven (Debian: apt install maven openjdk-17-jre-headless); or unpack Apache Kafka 4 and set KAFKA_HOME" >&2; exit 1; }
	rm -rf .kafka
	mvn -q -B -f testkit/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/.kafka/fetched
	cp testkit/kafka/log4j2.yaml .kafka/
	mv .kafka/fetched .kafka/libs

## faults: inject 260 faults into the live system on a real Kafka; writes bench/results/faults.md
faults: $(READY)
	$(BIN)/python -m tests.faults --faults 260 --jobs 3 --write --keep-going

# The image prectr is built here and has no digest of a registry.
## pin-images: write docker-compose.pinned.yml, an override with the digests behind the tags of docker-compose.yml
pin-images:
	docker compose config --lock-image-digests kafka prometheus grafana > docker-compose.pinned.yml.part
	mv docker-compose.pinned.yml.part docker-compose.pinned.yml

## lint: ruff and mypy only
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## setup: create or update .venv
setup: $(READY)

# Everything is pinned, so the first step resolves nothing; the second adds platform-specific packages (such as the CUDA
# libraries of torch) and the project itself.
$(READY): pyproject.toml constraints.txt setup.py $(wildcard stream/native/src/*/*)
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}. Choose another: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --prefer-binary --no-deps -r constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile --prefer-binary --no-build-isolation -c constraints.txt -e '.[dev]'
	@$(BIN)/python -c 'from prectr.stream.stages import described; print(f"prectr: {described()}")'
	touch $@

## clean: remove everything that set-up, tests and the demo created
clean:
	rm -rf .venv .kafka build stream/native/core.abi3.so demo-run up-run .coverage .coverage-kafka .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
