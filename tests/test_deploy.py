"""The files of deploy/: that they are what their readers take, name what there is, and start the servers as the command line has it."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import kubernetes_validate
import promql_parser
import pytest
import torch
import yaml
from prometheus_client.parser import text_string_to_metric_families

from luring import bundle, cli, guard, networks

DEPLOY = Path(__file__).parents[1] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS = [
    manifest
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for manifest in yaml.safe_load_all(file.read_text())
]
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/luring.json").read_text())
OPERATIONS = (DEPLOY.parent / "docs/operations.md").read_text()


def of(kind, name):
    (found,) = (one for one in MANIFESTS if one["kind"] == kind and one["metadata"]["name"] == name)
    return found


def pod(name):
    spec = of("Deployment", name)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


COMMANDS = {
    **{f"compose {name}": COMPOSE["services"][name]["command"] for name in ("decoy", "decision")},
    **{f"kubernetes {name}": pod(name)[1]["args"] for name in ("decoy", "decision")},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle with a guard, of networks that learned nothing."""
    found = tmp_path_factory.mktemp("deploy")
    torch.manual_seed(0)
    target = networks.make_target("plain", (1, 8, 8), 10)
    lure, name = networks.make_lure("plain-4", target, (1, 8, 8))
    config = {"target": "plain", "lure": name, "shape": [1, 8, 8], "classes": list("0123456789"), "method": "luring"}
    config |= {"data": {"name": "digits", "digest": ""}, "metrics": {"disagreement": 0.1}}
    bundle.save(found, target, lure, config)
    images = torch.rand(120, 1, 8, 8)
    detector = guard.Detector(target.eval(), networks.compose(lure, target).eval()).fit(images)
    detector.infer_threshold(images, fpr=0.1)
    detector.save(found)
    (found / "token").write_text("0123456789abcdef\n")
    return found


@pytest.fixture
def settings(folder, monkeypatch):
    """What the real command line makes of a command of the files, on the bundle here."""

    def parsed(command):
        started = []
        monkeypatch.setattr("luring.serve.run.serve", started.append)
        here = {"/bundle": str(folder)} | {
            one: str(folder / "token") for one in command if one.startswith("/run/secrets/")
        }
        monkeypatch.setattr(sys, "argv", ["luring", *(here.get(one, one) for one in command)])
        cli.main()
        return started[0]

    return parsed


@pytest.mark.parametrize("where", COMMANDS)
def test_the_command_line_takes_the_commands(where, settings):
    found, surface = settings(COMMANDS[where]), where.split()[1]
    assert found.surface == surface
    assert found.host == "0.0.0.0"
    assert (found.token is not None) == (surface == "decision")
    port = found.port
    if where.startswith("compose"):
        service = COMPOSE["services"][surface]
        assert f"127.0.0.1:{port}/v2/health/ready" in service["healthcheck"]["test"][-1]
        assert service.get("ports", []) == ([f"{port}:{port}"] if surface == "decoy" else [])
        grace = int(service["stop_grace_period"].removesuffix("s"))
    else:
        spec, container = pod(surface)
        assert [one["containerPort"] for one in container["ports"]] == [port]
        assert of("Service", surface)["spec"]["ports"][0]["port"] == port
        (rule,) = of("NetworkPolicy", surface)["spec"]["ingress"]
        assert rule["ports"][0]["port"] == port
        grace = spec["terminationGracePeriodSeconds"] - container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # What was accepted may take its time, twice: in the queue and in the network.
    assert grace > 2 * found.seconds


def exported(settings, surface):
    """Every metric that the real server shows, by the names of its samples, with its labels."""

    async def page(app, headers):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as client:
            await client.get("/v2/health/live")
            answer = await client.get("/metrics", headers=headers)
            # The request for the page is counted after it.
            answer = await client.get("/metrics", headers=headers)
            assert answer.status_code == 200
            return answer.text

    import importlib

    started = settings(COMMANDS[f"compose {surface}"])
    app = importlib.import_module(f"luring.serve.{surface}").app(started)
    text = asyncio.run(page(app, {"authorization": f"Bearer {started.token}"} if started.token else {}))
    return {
        sample.name: set(sample.labels) for family in text_string_to_metric_families(text) for sample in family.samples
    }


def selectors(expression):
    """The metrics that a query asks for, with the labels it chooses by."""
    found = []

    def walk(node):
        if isinstance(node, promql_parser.VectorSelector):
            name = node.name or next(one.value for one in node.matchers.matchers if one.name == "__name__")
            found.append((name, {one.name: one.value for one in node.matchers.matchers}))
        for part in ("expr", "lhs", "rhs", "vs", "vector_selector", "param"):
            child = getattr(node, part, None)
            if child is not None:
                walk(child)
        for child in getattr(node, "args", None) or []:
            walk(child)

    walk(promql_parser.parse(expression.replace("$__rate_interval", "5m")))
    return found


QUERIES = {
    **{f"rule {rule.get('alert') or rule['record']}": rule["expr"] for rule in RULES},
    **{
        f"panel {panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    },
    **{f"annotation {one['name']}": one["expr"] for one in DASHBOARD["annotations"]["list"]},
}


def test_queries_ask_for_metrics_that_the_servers_export(settings):
    names = exported(settings, "decoy") | exported(settings, "decision")
    assert "luring_flagged_total" in names
    assert "luring_flagged_total" not in exported(settings, "decoy")
    scraped = {"job", "instance"}
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    known = {**{name: labels | scraped for name, labels in names.items()}, **{name: {"job"} for name in recorded}}
    known |= {"up": scraped, "ALERTS": {"alertname", "alertstate"}}
    asked = set()
    for where, query in QUERIES.items():
        found = selectors(query)
        assert found, where
        for name, matchers in found:
            assert name in known, f"{where}: nothing exports {name}"
            assert set(matchers) <= known[name], f"{where}: {name} has no label {set(matchers) - known[name]}"
            asked.add(name)
    assert recorded <= asked
    # What an operator has to watch is watched.
    watched = ("images_total", "score_bucket", "threshold", "batch_images_count", "worker_restarts_total")
    assert {f"luring_{name}" for name in watched} <= asked


def test_job_names_are_those_that_prometheus_scrapes():
    scraped = {
        one["job_name"]: one
        for one in yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    }
    assert set(scraped) == {"decoy", "decision"}
    for name, job in scraped.items():
        (target,) = job["static_configs"][0]["targets"]
        command = COMMANDS[f"compose {name}"]
        assert target == f"{name}:{command[command.index('--port') + 1]}"
    assert scraped["decision"]["authorization"]["credentials_file"] == "/run/secrets/luring_token"
    assert "luring_token" in COMPOSE["services"]["prometheus"]["secrets"]
    assert "authorization" not in scraped["decoy"]
    for query in QUERIES.values():
        for _, matchers in selectors(query):
            if "job" in matchers:
                assert set(matchers["job"].split("|")) <= set(scraped)


def test_every_alert_is_explained():
    alerts = [rule["alert"] for rule in RULES if "alert" in rule]
    assert re.findall(r"\*\*(Luring\w+)\*\*", OPERATIONS) == alerts
    for rule in RULES:
        if "alert" in rule:
            assert rule["annotations"]["summary"]
            assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH: apt-get install prometheus")
def test_the_alerts_are_raised_when_they_should_be():
    command = ["promtool", "test", "rules", "alerts_test.yml"]
    done = subprocess.run(command, cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_can_be_drawn():
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/luring.yaml").read_text())["providers"]
    mounts = [one.split(":")[:2] for one in COMPOSE["services"]["grafana"]["volumes"]]
    assert ["./grafana/dashboards", provider["options"]["path"]] in mounts
    places = set()
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == source["uid"]
        assert all(target["datasource"]["uid"] == source["uid"] for target in panel["targets"])
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & places, f"{panel['title']} lies on another panel"
        assert max(x for x, _ in cells) < 24
        places |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_kubernetes_takes_the_manifests(manifest):
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", ["decoy", "decision"])
def test_pods_may_do_little(name):
    spec, container = pod(name)
    assert spec["securityContext"]["runAsNonRoot"]
    assert not spec["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} <= set(container["resources"])
    volumes = {one["name"] for one in spec["volumes"]}
    assert {one["name"] for one in container["volumeMounts"]} == volumes
    for probe, path in (("livenessProbe", "live"), ("readinessProbe", "ready")):
        assert container[probe]["httpGet"]["path"] == f"/v2/health/{path}"
    labels = of("Deployment", name)["spec"]["template"]["metadata"]["labels"]
    for selector in (
        of("Deployment", name)["spec"]["selector"]["matchLabels"],
        of("Service", name)["spec"]["selector"],
        of("PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"],
        of("NetworkPolicy", name)["spec"]["podSelector"].get("matchLabels", {}),
    ):
        assert selector.items() <= labels.items()
    assert of("NetworkPolicy", name)["spec"]["egress"] == []


def test_the_decision_is_reached_from_the_operators_namespace_alone():
    policy = of("NetworkPolicy", "decision")
    own = policy["metadata"]["namespace"]
    (rule,) = policy["spec"]["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": own}}}]
    assert of("Deployment", "decoy")["metadata"]["namespace"] != own
    assert not [one for one in MANIFESTS if one["kind"] == "Secret"], "a secret lies in no file"
    spec, container = pod("decision")
    (secret,) = (one["secret"] for one in spec["volumes"] if "secret" in one)
    assert (
        f"create secret generic {secret['secretName']} --namespace {own}"
        in (DEPLOY / "kubernetes/decision.yaml").read_text()
    )
    assert f"create secret generic {secret['secretName']} --namespace {own}" in OPERATIONS
    mount = next(one["mountPath"] for one in container["volumeMounts"] if one["name"] == "token")
    assert f"{mount}/token" in container["args"]
    decoy, _ = pod("decoy")
    assert not [one for one in decoy["volumes"] if "secret" in one]


def test_compose_names_what_it_has():
    services = COMPOSE["services"]
    known = {
        "image", "restart", "read_only", "tmpfs", "cap_drop", "security_opt", "stop_grace_period", "logging", "command", "volumes",
        "ports", "networks", "deploy", "healthcheck", "secrets", "environment",
    }  # fmt: skip
    for service in services.values():
        assert set(service) <= known
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", volume).split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).exists() or source.startswith("./bundles/")
    assert not set(services["decoy"]["networks"]) & set(services["decision"]["networks"])
    assert all(COMPOSE["networks"][one].get("internal") for one in services["decision"]["networks"])
    assert "secrets" not in services["decoy"]
    for name in ("decoy", "decision"):
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]


def test_the_container_is_built_from_what_there_is_and_runs_as_nobody_in_particular():
    text = (DEPLOY / "Containerfile").read_text()
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    assert {word for word, _ in lines} <= {"FROM", "ARG", "WORKDIR", "RUN", "ENV", "COPY", "USER", "ENTRYPOINT", "CMD"}
    assert [rest for word, rest in lines if word == "FROM"] == ["python:3.12-slim AS build", "python:3.12-slim"]
    assert dict(lines)["USER"] == "10001:10001"
    assert json.loads(dict(lines)["ENTRYPOINT"]) == ["luring"]
    assert f"runAsUser: {dict(lines)['USER'].split(':')[0]}" in (DEPLOY / "kubernetes/decoy.yaml").read_text()
    allowed = {
        line[1:] for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = {one for word, rest in lines if word == "COPY" and "--from" not in rest for one in rest.split()[:-1]}
    assert copied == allowed
    assert all((DEPLOY.parent / one).exists() for one in copied)
    for file in DEPLOY.rglob("*"):
        if file.is_file():
            assert not re.search(r"https?://(?!127\.0\.0\.1|prometheus:)", file.read_text()), file
