# syntax=docker/dockerfile:1
# One image for every command: docker build -t prectr . && docker run --rm prectr --help
# With CUDA: docker build --build-arg TORCH=cu130 -t prectr:cuda . , and docker run --gpus all.

# By digest: --build-arg PYTHON_IMAGE=python:3.11.13-slim-bookworm@sha256:... (docs/security.md).
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# The torch build: cpu or a CUDA version, as named by PyTorch. The torch version is pinned in constraints.txt.
ARG TORCH=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /opt/prectr
ENV PATH=/opt/prectr/bin:$PATH
# Least frequently changed layers first: torch, other dependencies, the program.
COPY pyproject.toml constraints.txt ./
RUN pip install --no-deps --index-url "https://download.pytorch.org/whl/${TORCH}" "$(grep '^torch==' constraints.txt)"
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
    && pip install --prefer-binary -c constraints.txt -r requirements.txt setuptools
# The native core is built here; the image itself has no compiler. PRECTR_NATIVE=1 ends the build if that fails.
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY README.md LICENSE setup.py ./
COPY stream stream
COPY model model
COPY state state
COPY ops ops
COPY prectr prectr
RUN pip install --no-deps --no-build-isolation . && PRECTR_NATIVE=1 prectr --version \
    && pip uninstall -y setuptools pip

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin prectr \
    && install -d -o prectr -g prectr /data /snapshots
COPY --from=build /opt/prectr /opt/prectr
ENV PATH=/opt/prectr/bin:$PATH PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp/matplotlib HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
WORKDIR /data
USER 10001
# Metrics (--metrics-port 9400 --metrics-address 0.0.0.0) and the monitor's page (--port 9480 --address 0.0.0.0).
EXPOSE 9400 9480
# For processes that serve metrics; disable it for one-shot commands (docker run --no-healthcheck). METRICS_HOST: the
# value of --metrics-address, where that is a single address.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os; from urllib.request import urlopen; urlopen('http://' + os.environ.get('METRICS_HOST', '127.0.0.1') + ':9400/healthz', timeout=4).read()"]
ENTRYPOINT ["prectr"]
CMD ["--help"]
