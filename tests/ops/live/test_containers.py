"""Dockerfile and docker-compose.yml hold together: commands, ports, settings, files, health checks. Needs no engine."""

import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from prectr.ops.cli.main import app
from prectr.ops.http.allowed_hosts import AllowedHosts
from prectr.ops.local_stack.demo import demo
from prectr.ops.metrics.exporter import Exporter
from prectr.ops.settings.loader import ENVIRONMENT_PREFIX, load_settings
from tests.local_stack.tools import needed

ROOT = Path(__file__).resolve().parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load(
    re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "prectr"}
SERVING = {name: service for name, service in OURS.items() if "--metrics-port" in service["command"]}
ONE_SHOT = {name: service for name, service in SERVICES.items() if service["restart"] in ("no", "on-failure")}
_PORTS_OF_IMAGES = {"prom/prometheus": "9090", "grafana/grafana": "3000"}


def dockerfile() -> list[list[str]]:
    """The instructions by stage, continuation lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    starts = [number for number, line in enumerate(lines) if line.startswith("FROM ")]
    return [lines[begin:end] for begin, end in zip(starts, [*starts[1:], len(lines)], strict=True)]


def parsed(words: list[str]) -> dict[str, Any]:
    """The options of a `prectr` command line, as the program reads them; nothing is run."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("prectr", list(words))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, list(rest), parent=context)
    return dict(context.params)


def test_the_compose_specification_accepts_it() -> None:
    done = subprocess.run([needed("docker-compose"), "config"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() == SERVICES.keys()


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_command_is_one_of_the_program(name: str) -> None:
    service = OURS[name]
    if "entrypoint" not in service:
        assert parsed(service["command"])["bootstrap"] == "kafka:29092"
        return
    assert service["entrypoint"] == ["python", "-m", "prectr.ops.local_stack.demo"]
    loader = typer.Typer()
    loader.command()(demo)
    options = typer.main.get_command(loader).make_context(name, list(service["command"])).params
    assert options["bootstrap"] == "kafka:29092"


def test_a_wrong_flag_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed([*OURS["stream-1"]["command"], "--no-such-flag"])


@pytest.mark.parametrize("name", sorted(OURS))
def test_settings_of_the_environment_are_settings_of_the_program(name: str) -> None:
    environ = {key: str(value) for key, value in OURS[name].get("environment", {}).items()}
    load_settings(environ={key: value for key, value in environ.items() if key.startswith(ENVIRONMENT_PREFIX)})
    assert {key for key in environ if not key.startswith(ENVIRONMENT_PREFIX)} <= {"OMP_NUM_THREADS", "METRICS_HOST"}


def test_kafka_is_at_the_default_bootstrap_address() -> None:
    environ = SERVICES["kafka"]["environment"]
    advertised = dict(each.split("://") for each in environ["KAFKA_ADVERTISED_LISTENERS"].split(","))
    listening = dict(each.split("://") for each in environ["KAFKA_LISTENERS"].split(","))
    assert advertised["PLAINTEXT"] == "kafka:29092"
    assert listening["PLAINTEXT"] == ":29092"
    # The advertised address must be the published one.
    assert SERVICES["kafka"]["ports"] == [f"127.0.0.1:{advertised['HOST'].split(':')[1]}:{listening['HOST'][1:]}"]
    assert set(environ["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")) == {
        f"{each}:PLAINTEXT" for each in listening
    }


def test_published_ports_are_served_and_for_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.keys() == {"kafka", "monitor", "prometheus", "grafana"}
    for name, ports in published.items():
        for port in ports:
            address, host, inside = port.split(":")
            assert (address, host) == ("127.0.0.1", inside)
            image = SERVICES[name]["image"].split(":")[0]
            if name == "monitor":
                options = parsed(SERVICES[name]["command"])
                assert (str(options["port"]), options["address"]) == (inside, "0.0.0.0")
            elif name != "kafka":
                assert _PORTS_OF_IMAGES[image] == inside


def targets() -> set[tuple[str, str]]:
    groups = yaml.safe_load((ROOT / "ops" / "prometheus" / "targets.yml").read_text(encoding="utf-8"))
    return {(group["labels"]["job"], target) for group in groups for target in group["targets"]}


def aliases(service: dict[str, Any], network: str) -> list[str]:
    """The names of a service on a network, further to its own."""
    networks = service["networks"]
    return [] if isinstance(networks, list) else ((networks[network] or {}).get("aliases") or [])


def test_prometheus_asks_every_process_that_serves_metrics() -> None:
    served = {
        (service["command"][0], f"{alias}:{parsed(service['command'])['metrics_port']}")
        for service in SERVING.values()
        for alias in aliases(service, "metrics")
    }
    assert targets() == served
    assert {job for job, _ in targets()} == {"stream", "train", "monitor"}


def test_an_exporter_listens_on_the_network_of_prometheus_alone_and_answers_to_its_name_there() -> None:
    for name, service in SERVING.items():
        options = parsed(service["command"])
        # A name that only this network resolves, and only to the address of this container there.
        assert [options["metrics_address"]] == aliases(service, "metrics") == [f"{name}.metrics"]
        assert options["metrics_address"] not in [*SERVICES, *aliases(service, "broker")]
        # The health check asks there too.
        assert service["environment"]["METRICS_HOST"] == options["metrics_address"]
        AllowedHosts(options["metrics_address"]).check(f"{options['metrics_address']}:{options['metrics_port']}")


def test_a_network_has_only_those_members_that_need_each_other() -> None:
    members: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for network in service["networks"]:
            members.setdefault(network, set()).add(name)
    assert members.keys() == COMPOSE["networks"].keys()
    assert members["broker"] == {"kafka", *OURS}
    assert members["metrics"] == {"prometheus", *SERVING}
    internal = {name for name, network in COMPOSE["networks"].items() if network and network["internal"]}
    assert internal == {"broker", "metrics"}
    # What is published shares a network with nothing else, but Grafana with the Prometheus that it reads.
    assert {frozenset(members[network]) for network in members.keys() - internal} == {
        frozenset({"kafka"}),
        frozenset({"monitor"}),
        frozenset({"prometheus", "grafana"}),
    }
    assert {name for name, service in SERVICES.items() if "ports" in service} == {
        name for network in members.keys() - internal for name in members[network]
    }


def test_prometheus_takes_its_configuration() -> None:
    flags = dict(flag.removeprefix("--").split("=") for flag in SERVICES["prometheus"]["command"])
    mounts = dict(volume.split(":")[:2][::-1] for volume in SERVICES["prometheus"]["volumes"])
    folder, name = os.path.split(flags["config.file"])
    assert mounts[folder] == "./ops/prometheus"
    assert flags["storage.tsdb.path"] in mounts
    # Its rule files are relative to it: the mounts must lie beside each other as the folders do here.
    assert mounts[os.path.normpath(f"{folder}/../alerts")] == "./ops/alerts"
    config = ROOT / "ops" / "prometheus" / name
    done = subprocess.run([needed("promtool"), "check", "config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


def test_what_is_mounted_exists_and_volumes_are_declared() -> None:
    named = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, target, *options = volume.split(":")
            assert target.startswith("/")
            if source.startswith("."):
                assert (ROOT / source).exists(), source
                assert options == ["ro"]
            else:
                named.add(source)
    assert named == COMPOSE["volumes"].keys()


def test_no_two_services_share_a_folder_but_that_of_snapshots() -> None:
    holders: dict[str, list[str]] = {}
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            holders.setdefault(volume.split(":")[0], []).append(name)
    shared = {volume: names for volume, names in holders.items() if len(names) > 1}
    assert shared == {"snapshots": ["stream-1", "stream-2"]}
    for name in ("stream-1", "stream-2", "train", "monitor"):
        options = parsed(SERVICES[name]["command"])
        folder = options.get("state_dir") or options.get("run_dir") or options.get("data_dir")
        assert str(folder) in [volume.split(":")[1] for volume in SERVICES[name]["volumes"]]


def test_every_service_has_a_limit_of_memory_a_policy_and_a_health_check() -> None:
    for name, service in SERVICES.items():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert service["restart"] in ("unless-stopped", "no", "on-failure"), name
        if name in ONE_SHOT:
            assert service["healthcheck"] == {"disable": True}, name
        elif name not in SERVING:
            # Those that serve metrics have that of the image.
            assert service["healthcheck"]["test"][0] == "CMD", name
    assert ONE_SHOT.keys() == {"topics", "load"}


def test_every_service_is_bounded_unprivileged_and_writes_only_to_its_volumes_and_to_memory() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert "privileged" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["user"].split(":")[0]) > 0, name
        assert 0 < service["pids_limit"] <= 1024, name
        assert service["ulimits"]["nofile"]["soft"] >= 4096, name
        assert {"max-size", "max-file"} <= service["logging"]["options"].keys(), name
        for tmpfs in service.get("tmpfs", []):
            assert re.fullmatch(r"/[a-z/]+:(exec,)?size=\d+m", tmpfs), f"{name}: {tmpfs}"
    for name, service in OURS.items():
        # Python, matplotlib and torch write temporary files.
        assert any(tmpfs.startswith("/tmp:") for tmpfs in service["tmpfs"]), name
        assert f"USER {service['user'].split(':')[0]}" in dockerfile()[-1], name


def test_what_is_waited_for_can_come() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            done = how["condition"] == "service_completed_successfully"
            assert done == (other in ONE_SHOT), f"{name} waits for {other}"
            assert done or how["condition"] == "service_healthy"


def test_the_health_check_of_the_image_detects_who_answers() -> None:
    check = next(line for line in dockerfile()[-1] if line.startswith("HEALTHCHECK "))
    _, *words = json.loads(check[check.index("[") :])
    assert {parsed(service["command"])["metrics_port"] for service in SERVING.values()} == {9400}
    exporter: Exporter[None] = Exporter(lambda _: iter(()), 0)
    there = [word.replace(":9400/", f":{exporter.port}/") for word in words]
    assert there != words
    assert subprocess.run([sys.executable, *there], capture_output=True, check=False).returncode == 0
    # At the address of METRICS_HOST, if that is set: an exporter that listens on one address answers only there.
    for host, answers in {"localhost": True, "127.0.0.2": False}.items():
        environ = {**os.environ, "METRICS_HOST": host}
        done = subprocess.run([sys.executable, *there], env=environ, capture_output=True, check=False)
        assert (done.returncode == 0) == answers, host
    exporter.close()
    assert subprocess.run([sys.executable, *there], capture_output=True, check=False).returncode != 0


def test_the_image_is_made_of_what_is_here() -> None:
    build, final = dockerfile()
    sources = [word for line in build if line.startswith("COPY ") for word in line.split()[1:-1]]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {package.rstrip("*") for package in packages} <= set(sources)
    assert [line for line in final if line.startswith("COPY ")] == ["COPY --from=build /opt/prectr /opt/prectr"]


def test_torch_is_the_pinned_one_and_every_dependency_has_a_pin() -> None:
    build = dockerfile()[0]
    assert "ARG TORCH=cpu" in build
    torch = next(line for line in build if "/whl/${TORCH}" in line)
    snippet = re.search(r"\$\((grep [^)]*)\)", torch)
    assert snippet is not None
    found = subprocess.run(shlex.split(snippet[1]), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"torch==[\d.]+\n", found)
    listing = next(line for line in build if "tomllib" in line)
    program = shlex.split(listing.removeprefix("RUN ").split(" > ")[0])
    names = subprocess.run([sys.executable, *program[1:]], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pins = {normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    asked = [normal(re.split(r"[<>=\[ ]", name)[0]) for name in names.splitlines()]
    assert "torch" in asked
    assert set(asked) <= pins


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


def test_the_image_runs_unprivileged_and_without_build_tools() -> None:
    final = dockerfile()[-1]
    user = next(line for line in final if line.startswith("USER ")).split()[1]
    made = next(line for line in final if "useradd" in line)
    assert f"--uid {user} " in made
    assert int(user) > 0
    runs = " ".join(line for line in final if line.startswith("RUN "))
    assert not re.search(r"\b(apt|apt-get|pip|gcc|build-essential)\b", runs)
    assert dockerfile()[0][0] == "FROM ${PYTHON_IMAGE} AS build"
    assert final[0] == "FROM ${PYTHON_IMAGE}"
    assert next(line for line in final if line.startswith("ENTRYPOINT ")) == 'ENTRYPOINT ["prectr"]'
    # Folders that volumes are mounted on must be its own, or it could not write there.
    folders = set(made.split(" install ")[1].split()) & {"/data", "/snapshots"}
    mounted = {volume.split(":")[1] for service in OURS.values() for volume in service.get("volumes", [])}
    assert mounted == folders


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path from the builder: the last pattern that matches it, or its folder, decides."""
    out = False
    for pattern in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if pattern and not pattern.startswith("#"):
            wanted = pattern.startswith("!")
            parts = path.split("/")
            above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
            plain = pattern.removeprefix("!").removeprefix("**/")
            anywhere = pattern.startswith("**/")
            if any(fnmatch.fnmatch(os.path.basename(each) if anywhere else each, plain) for each in above):
                out = not wanted
    return out


def test_nothing_but_the_program_goes_to_the_builder() -> None:
    for path in (
        ".git/config",
        ".venv/bin/python",
        "up-run/up.log",
        "tests/conftest.py",
        "demo-run/log.jsonl",
        "log.gz",
    ):
        assert ignored(path), path
    assert ignored("stream/__pycache__/events.cpython-311.pyc")
    for path in (
        "stream/events/contract.py",
        "ops/local_stack/demo.py",
        "model/text/encoder/shipped/model.safetensors",
        "constraints.txt",
    ):
        assert not ignored(path), path


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = ROOT / "ops" / "grafana" / "provisioning"
    mounts = dict(volume.split(":")[:2][::-1] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["/etc/grafana/provisioning"] == "./ops/grafana/provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    scrape = yaml.safe_load((ROOT / "ops" / "prometheus" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape
    provider = yaml.safe_load((provisioning / "dashboards" / "prectr.yml").read_text())["providers"][0]
    folder = mounts[provider["options"]["path"]]
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (ROOT / folder / home.name).is_file()


def test_images_are_pinned_by_an_exact_tag_and_a_make_target_pins_each_by_its_digest() -> None:
    exact = re.compile(r":v?\d+\.\d+\.\d+(-slim-bookworm)?$")
    for service in SERVICES.values():
        if service["image"] != "prectr":
            assert exact.search(service["image"]), service["image"]
    base = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    assert exact.search(base[1]), base[1]
    recipe = re.search(
        r"^\tdocker compose config --lock-image-digests (.*) >", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert recipe is not None
    assert set(recipe[1].split()) == SERVICES.keys() - OURS.keys()
