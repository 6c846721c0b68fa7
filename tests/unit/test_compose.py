"""docker-compose.yml is what Docker Compose can read, and its parts know each other. No engine needed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from celery import Celery
from celery.bin.base import CLIContext
from celery.bin.worker import worker

from celery_ha.config import names

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent.parent
FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
PROFILES = ("redis", "rabbitmq-zookeeper")
#: The host of each URL, without a login.
HOST = re.compile(r"\w+://(?:[^@/\s']*@)?([\w.-]+)")


def active(profile: str) -> dict[str, dict[str, Any]]:
    return {name: each for name, each in SERVICES.items() if profile in each.get("profiles", [profile])}


def hosts(profile: str) -> set[str]:
    """What the services of a profile can be reached by."""
    known = set(active(profile))
    for each in active(profile).values():
        networks = each.get("networks", {})
        known.update(alias for network in networks.values() for alias in network.get("aliases", ()))
    return known


def texts(value: object) -> Iterator[str]:
    """Every text in a value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from texts(each)
    else:
        yield str(value)


def mounts(service: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is mounted, and where."""
    for volume in service.get("volumes", ()):
        source, target = volume.split(":")[:2]
        yield source, target


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def spec() -> jsonschema.Draft7Validator:
    """The JSON Schema of the Compose specification, as check-jsonschema brings it."""
    text = files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text(encoding="utf-8")
    schema = json.loads(text)
    return jsonschema.validators.validator_for(schema)(schema)


def test_the_file_is_of_the_compose_specification(spec):
    assert [error.message for error in spec.iter_errors(FILE)] == []


@pytest.mark.parametrize(
    "change", [{"helthcheck": {}}, {"depends_on": {"redis": {"condition": "healthy"}}}, {"ports": "5555"}]
)
def test_a_slip_would_be_noticed(spec, change):
    assert list(spec.iter_errors({"services": {"one": {"image": "x", **change}}}))


def test_the_default_profile_is_redis():
    assert "COMPOSE_PROFILES=redis" in (ROOT / ".env").read_text().splitlines()
    assert {profile for each in SERVICES.values() for profile in each.get("profiles", ())} == set(PROFILES)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_can_be_had_and_is_looked_at(name):
    service = SERVICES[name]
    assert ("image" in service) or ("build" in service)
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    # Compose would read one dollar as a variable of its own
    assert not [text for text in texts(service["healthcheck"]["test"]) if re.search(r"(?<!\$)\$(?!\$)", text)]
    assert ":latest" not in service.get("image", "")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_has_all_that_it_needs(profile):
    services = active(profile)
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, f"{name} needs {needed}"
            assert how == {"condition": "service_healthy"}
    workers = [each for each in services.values() if "worker" in each.get("command", ())]
    assert len({each["hostname"] for each in workers}) == len(workers) == 3
    assert sum("flower" in each.get("command", ()) for each in services.values()) == 1
    assert {"prometheus", "grafana"} <= set(services)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_url_names_a_service_of_its_profile(profile):
    known = hosts(profile) | {"localhost"}
    found = [
        (name, host)
        for name, service in active(profile).items()
        for part in ("environment", "command", "healthcheck")
        for text in texts(service.get(part, {}))
        for host in HOST.findall(text)
    ]
    assert len(found) > len(PROFILES)
    assert [(name, host) for name, host in found if host not in known] == []


@pytest.mark.parametrize("profile", PROFILES)
def test_ports_are_free_for_each_other_and_shut_to_others(profile):
    ports = [port for service in active(profile).values() for port in service.get("ports", ())]
    assert len(set(ports)) == len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_redis_keeps_what_it_is_given():
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert ("redis", "/data") in set(mounts(SERVICES["redis"]))


@pytest.mark.parametrize(("service", "image"), [("rabbitmq", "rabbitmq:4-*"), ("zookeeper", "zookeeper:3.9*")])
def test_versions(service, image):
    assert fnmatch(SERVICES[service]["image"], image)


def test_what_is_mounted_is_there():
    named = set()
    for service in SERVICES.values():
        for source, _ in mounts(service):
            if source.startswith("."):
                assert (ROOT / source).exists(), source
            else:
                named.add(source)
    assert named == set(FILE["volumes"])


@pytest.mark.parametrize("profile", PROFILES)
def test_prometheus_asks_whom_there_is_to_ask(profile):
    config = read("examples/prometheus/prometheus.yml")
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    workers = [each for each in active(profile).values() if "worker" in each.get("command", ())]
    assert set(targets["workers"]) == {
        f"{each['hostname']}:{each['environment']['SHOP_METRICS_PORT']}" for each in workers
    }
    asked = {target.partition(":")[0] for job in targets.values() for target in job}
    assert asked <= hosts(profile)


def test_grafana_finds_prometheus_and_its_dashboards():
    folder = "examples/grafana/provisioning"
    (source,) = read(f"{folder}/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read(f"{folder}/dashboards/dashboards.yml")["providers"]
    mounted = {target: local for local, target in mounts(SERVICES["grafana"])}
    assert mounted[provider["options"]["path"]] == "./examples/grafana"
    assert mounted["/etc/grafana/provisioning"] == f"./{folder}"
    for dashboard in (ROOT / "examples" / "grafana").glob("*.json"):
        json.loads(dashboard.read_text(encoding="utf-8"))


@pytest.mark.parametrize("profile", PROFILES)
def test_the_shop_takes_its_servers_from_the_environment(profile):
    workers = [each["environment"] for each in active(profile).values() if "worker" in each.get("command", ())]
    environment = dict(workers[0])
    if "ha_metrics_port" not in names():
        del environment["SHOP_METRICS_PORT"]
    done = subprocess.run(
        [sys.executable, "-c", "import shop; print(shop.app.conf.broker_url, shop.app.ha.config.store)"],
        cwd=ROOT / "examples" / "shop",
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == [environment["SHOP_BROKER"], str(environment.get("SHOP_STORE"))], done.stderr


@pytest.mark.parametrize("name", [name for name, each in SERVICES.items() if "build" in each])
def test_what_runs_in_our_image_is_there_and_takes_these_options(name):
    program, option, module, command, *options = SERVICES[name]["command"]
    assert (program, option) == ("celery", "-A")
    assert (ROOT / "examples" / "shop" / f"{module}.py").exists()
    if command == "worker":
        # As Celery reads them; $$ is a dollar, %h a host.
        worker.make_context(
            "worker", options, obj=CLIContext(Celery(set_as_current=False), no_color=True, workdir=None)
        )
    else:
        assert command == "flower"
    checked = SERVICES[name]["healthcheck"]["test"][1]
    assert checked == "python" or f"\n{checked} = " in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_what_pages_run_in_a_container_is_in_the_image():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    said = " \n".join(page.read_text(encoding="utf-8") for page in pages)
    run = re.findall(r"(?:docker compose exec \S+|kubectl exec \S+ --) (\S+) (\S+) (\S+) ?(\S*)", said)
    assert {words[0] for words in run} == {"python", "celery"}
    for program, *words in run:
        if program == "python":
            assert (ROOT / "examples" / "shop" / words[0]).exists()
        else:
            assert words == ["-A", "shop", "ha"]


def test_pages_name_services_that_are_there():
    pages = [ROOT / "docker-compose.yml", ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    said = " \n".join(page.read_text(encoding="utf-8") for page in pages)
    command = r"docker compose (?:--profile \S+ )?(?:kill -s KILL|pause|unpause|start|stop|exec|logs -f|logs) ([\w-]+)"
    named = re.findall(command, said)
    assert "worker-2" in named
    assert set(named) <= set(SERVICES)


class Dockerfile:
    """The instructions of the Dockerfile, in their order."""

    lines = tuple(
        line.split(maxsplit=1)
        for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith(("#", " "))
    )

    @classmethod
    def all(cls, word: str) -> list[str]:
        return [rest for first, rest in cls.lines if first == word]


def test_what_the_image_copies_is_there_and_sent_to_the_builder():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        source for rest in Dockerfile.all("COPY") if "--from" not in rest for source in rest.split()[:-1]
    ]  # the last one is where to
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert source in allowed


def test_the_image_is_small_and_not_roots():
    assert {image.split()[0] for image in Dockerfile.all("FROM")} == {"python:3.13-slim"}
    assert Dockerfile.all("USER")[-1].isdecimal()
    assert Dockerfile.all("USER")[-1] != "0"


def test_the_image_installs_what_the_extras_ask_for():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', "\n".join(Dockerfile.all("RUN")))
    wanted = [re.search(rf'^{extra} = \["(.+)"\]$', project, re.MULTILINE)[1] for extra in extras.split(",")]
    # A layer of its own, so that a change of the code does not download them again
    assert [each for each in wanted if f'"{each}"' not in "\n".join(Dockerfile.all("RUN"))] == []
