"""The dashboard asks for metrics that exist, the manifests call probes that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from celery_ha.probe import __main__ as program
from celery_ha.telling.metrics import Metrics
from celery_ha.worker.gauges import follow

prometheus_client = pytest.importorskip("prometheus_client")
yaml = pytest.importorskip("yaml")

pytestmark = pytest.mark.unit

EXAMPLES = Path(__file__).parents[2] / "examples"
DASHBOARD = json.loads((EXAMPLES / "grafana" / "celery_ha.json").read_text(encoding="utf-8"))
#: A selector, with the metric before and the labels in it.
SELECTOR = re.compile(r"(celery_ha_\w+)(?:\{([^}]*)\})?")
#: Labels that a scrape adds.
SCRAPED = {"job", "instance"}


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((EXAMPLES / "kubernetes" / name).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def served() -> dict[str, set[str]]:
    """Every sample that a worker can serve, with its labels."""
    registry = prometheus_client.CollectorRegistry()
    metrics = Metrics(registry)
    follow(metrics, SimpleNamespace(announcer=SimpleNamespace(leads=True, owned=3), trusted_until=None))
    metrics.measure("lock_wait", 0.1, {"task": "t", "outcome": "granted"})
    metrics.measure("lock_line", 0.1, {"task": "t"})
    metrics.measure("lock_hold", 0.1, {"task": "t"})
    found: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("query", queries())
def test_every_query_of_the_dashboard_is_of_metrics_and_labels_that_exist(served, query):
    selectors = SELECTOR.findall(query)
    assert selectors
    for name, labels in selectors:
        assert name in served, f"{name} is no metric"
        assert set(re.findall(r"(\w+)\s*[=!]", labels)) <= served[name] | SCRAPED
    grouped = {label.strip() for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(",")}
    assert grouped <= set().union(*(served[name] for name, _ in selectors)) | SCRAPED


def test_every_metric_is_in_the_dashboard(served):
    asked = {name for query in queries() for name, _ in SELECTOR.findall(query)}
    shown = {name for name in served if not name.endswith(("_created", "_sum", "_count")) and name not in asked}
    assert shown == set()


def test_legends_name_labels_that_their_query_keeps():
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = {each.strip() for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for each in by.split(",")}
            assert named <= kept, panel["title"]


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_probes_of_the_manifest_are_calls_that_the_program_understands():
    (worker,) = (each for each in documents("worker.yaml") if each["kind"] == "Deployment")
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    asked = {}
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        name, *options = container[kind]["exec"]["command"]
        assert name == "celery-ha-probe"
        _, _, asked[kind], _ = program._options(options)
    # Whoever restarts a worker because its store is away makes it worse.
    assert asked == {"startupProbe": True, "livenessProbe": True, "readinessProbe": False}


def test_the_manifests_fit_together():
    for name in ("worker.yaml", "redis.yaml"):
        for document in documents(name):
            assert {"apiVersion", "kind", "metadata", "spec"} <= document.keys()
            spec = document["spec"]
            if "template" in spec:
                labels = spec["template"]["metadata"]["labels"]
                assert spec["selector"]["matchLabels"].items() <= labels.items()
    deployment, budget = documents("worker.yaml")
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(container["ports"][0]["containerPort"])
    shop = (EXAMPLES / "shop" / "shop.py").read_text(encoding="utf-8")
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert [name for name in environment if f'"{name}"' not in shop] == [], "the shop does not read it"
    assert environment["SHOP_METRICS_PORT"] == str(container["ports"][0]["containerPort"])
    image = (EXAMPLES.parent / "Dockerfile").read_text(encoding="utf-8")
    assert f"USER {template['spec']['securityContext']['runAsUser']}\n" in image
    service, redis = documents("redis.yaml")
    assert (
        f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/0" == container["env"][0]["value"]
    )
    assert {"--appendonly", "noeviction"} <= set(redis["spec"]["template"]["spec"]["containers"][0]["args"])
