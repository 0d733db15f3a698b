"""What lies in `deploy/`, by the programs and schemas that will read it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import running
import yaml
from certificates import Authority
from prometheus_client.parser import text_string_to_metric_families

from dicomnode import check, config
from dicomnode.config import Problem

DEPLOY = running.ROOT / "deploy"
SYSTEMD, CONTAINERS = DEPLOY / "systemd", DEPLOY / "containers"
KUBERNETES, MONITORING = DEPLOY / "kubernetes", DEPLOY / "monitoring"

UNITS = sorted(path.name for path in SYSTEMD.glob("*.service"))
RUNBOOK = (DEPLOY / "runbook.md").read_text(encoding="utf-8")

# What a unit may do at most, of ten: `systemd-analyze security`.
MOST_EXPOSED = "2.0"
# The oldest and the newest of which the manifests are to make sense.
KUBERNETES_VERSIONS = ("1.29", "1.37")

# What the node says of itself at /metrics.
METRICS = {
    "dicomnode_audit_messages_waiting": set(),
    "dicomnode_audit_messages_sent_total": set(),
    "dicomnode_audit_messages_dropped_total": set(),
    "dicomnode_audit_collector_failures_total": set(),
    "dicomnode_alerts": {"alert"},
    "dicomnode_alert_messages_waiting": {"channel"},
    "dicomnode_studies": {"outcome"},
    "dicomnode_jobs": {"state"},
    "dicomnode_job_stage_seconds": {"stage", "model", "le"},
    "dicomnode_queue_depth": {"queue"},
    "dicomnode_queue_oldest_seconds": {"queue"},
    "dicomnode_associations_open": {"peer"},
    "dicomnode_received_instances_total": set(),
    "dicomnode_received_bytes_total": set(),
    "dicomnode_disk_free_bytes": set(),
    "dicomnode_deliveries": {"destination", "state"},
    "dicomnode_delivery_failures_total": {"destination"},
    "dicomnode_workers": {"device"},
    "dicomnode_gpu_memory_used_bytes": {"host", "device"},
    "dicomnode_gpu_memory_bytes": {"host", "device"},
    "dicomnode_last_received_timestamp_seconds": set(),
    "dicomnode_info": {"version"},
}


def said(*command: str | Path, succeeds: bool = True) -> str:
    """What a program says of a file."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode == 0) is succeeds, done.stdout + done.stderr
    return done.stdout + done.stderr


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


# ── systemd ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of a machine on which the node is installed; its programs do nothing."""
    root = tmp_path / "machine"
    units = root / "etc" / "systemd" / "system"
    units.mkdir(parents=True)
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    for unit in UNITS:
        shutil.copy(SYSTEMD / unit, units)
    programs = root / "opt" / "dicomnode" / "bin"
    programs.mkdir(parents=True)
    for name in ("dicomnode", "python"):
        shutil.copy("/bin/true", programs / name)
    (root / "usr" / "bin").mkdir()
    shutil.copy("/bin/true", root / "usr" / "bin" / "kill")
    return root


def verify(machine: Path, unit: str) -> str:
    return said("systemd-analyze", "verify", "--man=no", f"--root={machine}", unit)


@pytest.mark.server("systemd")
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_has_nothing_to_say_of_a_unit(machine: Path, unit: str) -> None:
    assert verify(machine, unit) == ""


@pytest.mark.server("systemd")
@pytest.mark.parametrize("drop_in", sorted(path.name for path in SYSTEMD.glob("*.conf")))
@pytest.mark.parametrize("unit", UNITS)
def test_nor_of_one_with_a_drop_in(machine: Path, unit: str, drop_in: str) -> None:
    folder = machine / "etc/systemd/system" / f"{unit}.d"
    folder.mkdir()
    shutil.copy(SYSTEMD / drop_in, folder)
    assert verify(machine, unit) == ""


@pytest.mark.server("systemd")
def test_systemd_would_say_so_were_a_key_misspelt(machine: Path) -> None:
    unit = machine / "etc/systemd/system/dicomnode.service"
    unit.write_text(unit.read_text().replace("KillMode=", "KillMood="))
    assert "KillMood" in verify(machine, "dicomnode.service")


@pytest.mark.server("systemd")
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_may_do_little(unit: str) -> None:
    threshold = str(round(float(MOST_EXPOSED) * 10))
    said("systemd-analyze", "security", "--offline=yes", f"--threshold={threshold}", SYSTEMD / unit)


@pytest.mark.server("systemd")
def test_the_user_is_made(tmp_path: Path) -> None:
    made = said(
        "systemd-sysusers", "--dry-run", f"--root={tmp_path}", SYSTEMD / "dicomnode.sysusers"
    )
    assert "user 'dicomnode'" in made


def settings(unit: str) -> list[tuple[str, str]]:
    lines = (SYSTEMD / unit).read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return [(key, value) for key, _, value in pairs]


def test_every_unit_is_restricted_alike() -> None:
    """systemd knows no inclusion: the block stands in each unit, and must not drift apart."""
    free = re.compile(
        r"(Description|After|Wants|Conflicts|ExecStart|ExecReload|TimeoutStopSec|Device.*|PrivateDevices"
        r"|MemoryDenyWriteExecute|OOMPolicy|Environment|DefaultInstance)"
    )
    blocks = [[pair for pair in settings(unit) if not free.fullmatch(pair[0])] for unit in UNITS]
    assert all(block == blocks[0] for block in blocks)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_ended_in_order_and_not_started_again_in_vain(unit: str) -> None:
    of = dict(settings(unit))
    assert (of["KillMode"], of["KillSignal"]) == ("mixed", "SIGTERM")
    assert of["RestartPreventExitStatus"] == str(check.EXIT_ERRORS)


def test_whoever_runs_a_model_may_bring_it_to_its_end() -> None:
    """Longer than the longest that a run may take, where the file does not say otherwise."""
    timeout_s = config.Worker().timeout_s
    unit = dict(settings("dicomnode-predict@.service"))
    assert float(unit["TimeoutStopSec"]) > timeout_s
    predict = compose()["services"]["predict"]
    assert float(predict["stop_grace_period"].removesuffix("m")) * 60 > timeout_s
    (pod,) = (spec for name, spec in pods() if name == "dicomnode-predict")
    assert pod["terminationGracePeriodSeconds"] > timeout_s


# ── containers ──────────────────────────────────────────────────────────────────────────────────


def compose() -> dict[str, Any]:
    (document,) = documents(CONTAINERS / "compose.yaml")
    return document


def against_compose_schema(*paths: Path, succeeds: bool = True) -> str:
    program = Path(sys.executable).parent / "check-jsonschema"
    return said(program, "--builtin-schema", "vendor.compose-spec", *paths, succeeds=succeeds)


def test_the_compose_files_are_some(tmp_path: Path) -> None:
    against_compose_schema(CONTAINERS / "compose.yaml", CONTAINERS / "compose.gpu.yaml")
    misspelt = tmp_path / "compose.yaml"
    text = (CONTAINERS / "compose.yaml").read_text(encoding="utf-8")
    misspelt.write_text(text.replace("depends_on", "depend_on"), encoding="utf-8")
    assert "depend_on" in against_compose_schema(misspelt, succeeds=False)


def test_what_the_compose_file_names_is_there() -> None:
    """Files, secrets and volumes; but for the secrets, which are made by hand."""
    document = compose()
    for name, service in document["services"].items():
        assert set(service.get("secrets", ())) <= set(document["secrets"]), name
        assert set(service.get("depends_on", ())) <= set(document["services"]), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (CONTAINERS / source).exists(), volume
            else:
                assert source in document["volumes"], volume
    assert {f"./secrets/{name}" for name in document["secrets"]} == {
        secret["file"] for secret in document["secrets"].values()
    }
    assert "/secrets/" in (CONTAINERS / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_every_image_can_be_named_otherwise_and_names_no_host() -> None:
    for name, service in compose()["services"].items():
        match = re.fullmatch(r"\$\{[A-Z_]+_IMAGE:-([a-z/:.0-9-]+)\}", service["image"])
        assert match is not None, name
        assert "." not in match[1].partition("/")[0].partition(":")[0], match[1]
    containerfile = (CONTAINERS / "Containerfile").read_text(encoding="utf-8")
    stages = set(re.findall(r"^FROM \S+ AS ([a-z-]+)$", containerfile, re.MULTILINE))
    named = re.findall(r"^FROM (\S+)", containerfile, re.MULTILINE)
    assert set(named) <= {"${BASE}", *stages}


def test_the_containerfile_copies_what_is_there_and_what_is_not_ignored() -> None:
    text = (CONTAINERS / "Containerfile").read_text(encoding="utf-8")
    copied = [
        source
        for words in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for source in words.split()[:-1]
    ]
    assert copied
    ignored = (CONTAINERS / "Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for source in copied:
        assert (running.ROOT / source).exists()
        assert f"!{source}" in ignored
    targets = {
        service["build"]["target"]
        for service in compose()["services"].values()
        if "build" in service
    }
    assert targets <= set(re.findall(r"^FROM \S+ AS ([a-z-]+)$", text, re.MULTILINE))


def test_the_receiver_of_the_containerfile_installs_what_pyproject_names() -> None:
    """Its first stage reads these two lists; were one renamed, the image would lack something."""
    project = tomllib.loads((running.ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    assert "pynetdicom" in project["dependencies"]
    assert "torch" in project["optional-dependencies"]["worker"]


# ── Kubernetes ──────────────────────────────────────────────────────────────────────────────────


def manifests() -> list[dict[str, Any]]:
    files = sorted(KUBERNETES.glob("*.yaml"))
    return [one for path in files for one in documents(path) if one["kind"] != "Kustomization"]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod of everything that runs."""
    for one in manifests():
        if one["kind"] in {"Deployment", "StatefulSet"}:
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_manifest_is_one(version: str) -> None:
    for manifest in manifests():
        kubernetes_validate.validate(manifest, version, strict=True)
    misspelt = next(one for one in manifests() if one["kind"] == "StatefulSet")
    misspelt["spec"]["replcas"] = misspelt["spec"].pop("replicas")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, version, strict=True)


def test_the_kustomization_names_every_file_and_every_image() -> None:
    (document,) = documents(KUBERNETES / "kustomization.yaml")
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(document["resources"]) == files
    images = {container["image"] for _, pod in pods() for container in pod["containers"]}
    assert images == {image["name"] for image in document["images"]}
    for made in document["configMapGenerator"]:
        assert all((KUBERNETES / file).is_file() for file in made["files"])


def test_what_a_pod_mounts_is_there_or_is_expected() -> None:
    (document,) = documents(KUBERNETES / "kustomization.yaml")
    head = (
        (KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8").partition("apiVersion")[0]
    )
    maps = {made["name"] for made in document["configMapGenerator"]}
    claims = {
        one["metadata"]["name"] for one in manifests() if one["kind"] == "PersistentVolumeClaim"
    }
    for name, pod in pods():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounted = {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]}
        assert mounted == set(volumes), name
        for volume in volumes.values():
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps
            if "secret" in volume:
                assert volume["secret"]["secretName"] in head
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_every_pod_is_nobodys_and_sees_no_variables_of_services() -> None:
    """A Service `dicomnode-listen` would set DICOMNODE_LISTEN_PORT: the node refuses to start."""
    for name, pod in pods():
        assert pod["enableServiceLinks"] is False, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        for container in pod["containers"]:
            restricted = container["securityContext"]
            assert restricted["readOnlyRootFilesystem"] is True
            assert restricted["allowPrivilegeEscalation"] is False
            assert restricted["capabilities"] == {"drop": ["ALL"]}


def test_every_selector_finds_a_pod() -> None:
    labels = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in manifests()
        if one["kind"] in {"Deployment", "StatefulSet"}
    ]
    ports = {
        port["name"]
        for _, pod in pods()
        for one in pod["containers"]
        for port in one.get("ports", ())
    }
    for one in manifests():
        spec = one.get("spec", {})
        if one["kind"] == "Service":
            selectors, targets = [spec["selector"]], {port["targetPort"] for port in spec["ports"]}
            assert targets <= ports
        else:
            found = (spec.get(key, {}) for key in ("selector", "podSelector"))
            selectors = [each.get("matchLabels", {}) for each in found if "matchLabels" in each]
        for selector in selectors:
            assert any(selector.items() <= each.items() for each in labels), one["metadata"]["name"]


def test_workers_are_scaled_by_a_number_that_the_node_gives() -> None:
    (scaler,) = (one for one in manifests() if one["kind"] == "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] in {name for name, _ in pods()}
    for metric in scaler["spec"]["metrics"]:
        asked = metric["external"]["metric"]
        assert set(asked["selector"]["matchLabels"]) <= METRICS[asked["name"]]


# ── configuration ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def here(tmp_path: Path, authority: Authority) -> Mapping[str, str]:
    """Where on this machine lies what the files have elsewhere."""
    secret = tmp_path / "password"
    secret.write_text("secret\n")
    page = authority.issue("page")
    page.key.chmod(0o600)
    return {
        "DICOMNODE__NODE__DATA_DIR": str(tmp_path / "data"),
        "DICOMNODE__DATABASE__PASSWORD_FILE": str(secret),
        "DICOMNODE__QUEUE__PASSWORD_FILE": str(secret),
        "DICOMNODE__WEB__CERTIFICATE": str(page.certificate),
        "DICOMNODE__WEB__KEY": str(page.key),
        "DICOMNODE__MODELS__HIPPOCAMPUS__BUNDLE": str(running.HIPPOCAMPUS),
    }


def problems(path: Path, environ: Mapping[str, str], *keys: str) -> list[Problem]:
    """What `check` says of a file, with those of `keys` laid over it."""
    chosen = {one: value for one, value in environ.items() if one.startswith(_prefixed(keys))}
    return list(check.run(path, chosen))


def _prefixed(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"DICOMNODE__{key}" for key in keys)


def test_the_configuration_of_the_units_is_sound(here: Mapping[str, str], tmp_path: Path) -> None:
    environ = {**here, "DICOMNODE__DATABASE__URL": f"sqlite:///{tmp_path}/data/node.db"}
    found = problems(SYSTEMD / "node.toml", environ, "NODE", "DATABASE__URL", "MODELS")
    assert found == []


def test_the_configuration_of_the_hospital_is_sound(here: Mapping[str, str]) -> None:
    """Its page speaks plainly, to this machine alone: compose.yaml publishes it so."""
    found = problems(CONTAINERS / "node.toml", here, "NODE", "DATABASE", "QUEUE", "MODELS")
    assert [one.code for one in found] == ["page-in-the-clear"]
    assert "127.0.0.1:8080:8080" in compose()["services"]["node"]["ports"]


def test_the_configuration_of_the_cluster_is_sound(here: Mapping[str, str]) -> None:
    found = problems(KUBERNETES / "node.toml", here, "NODE", "DATABASE", "QUEUE", "WEB", "MODELS")
    assert found == []


@pytest.mark.parametrize("folder", [CONTAINERS, KUBERNETES, SYSTEMD], ids=lambda path: path.name)
def test_a_configuration_names_only_places_that_its_surroundings_have(folder: Path) -> None:
    """Every absolute path lies below one that the unit, the service or the pod gives the node."""
    raw = (folder / "node.toml").read_text(encoding="utf-8")
    given = {
        SYSTEMD: ["/var/lib/dicomnode/"],
        CONTAINERS: ["/var/lib/dicomnode/", "/models/", "/run/secrets/"],
        KUBERNETES: ["/var/lib/dicomnode/", "/models/", "/run/secrets/dicomnode"],
    }[folder]
    paths = re.findall(r'"(?:sqlite:///)?(/[^"]+)"', raw)
    assert paths
    assert [path for path in paths if not path.startswith(tuple(given))] == []


# ── monitoring ──────────────────────────────────────────────────────────────────────────────────


def rules() -> list[dict[str, Any]]:
    (document,) = documents(MONITORING / "alerts.yaml")
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def drawn() -> list[str]:
    """The expressions of the dashboard, with what Grafana puts in place of its variables."""
    return [
        target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
        for panel in panels()
        for target in panel["targets"]
    ]


def named(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics of an expression, each with the labels that it is chosen by."""
    for name, chosen in re.findall(r"\b(dicomnode_\w+)(?:\{([^}]*)\})?", expression):
        yield (
            re.sub(r"(?<=_seconds)_(bucket|sum|count)$", "", name),
            set(re.findall(r"(\w+)[=!]", chosen)) - {"job", "instance"},
        )


@pytest.mark.server("prometheus")
def test_prometheus_takes_the_rules_and_the_configuration() -> None:
    said("promtool", "check", "rules", MONITORING / "alerts.yaml")
    said("promtool", "check", "config", MONITORING / "prometheus.yaml")


@pytest.mark.server("prometheus")
def test_each_alert_calls_when_it_should_and_not_otherwise() -> None:
    said("promtool", "test", "rules", MONITORING / "alerts.test.yaml")
    (document,) = documents(MONITORING / "alerts.test.yaml")
    cases = [case for test in document["tests"] for case in test["alert_rule_test"]]
    called = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    every = {rule["alert"] for rule in rules()}
    assert called == every
    assert silent == every


@pytest.mark.server("prometheus")
def test_every_panel_asks_something_that_prometheus_understands(tmp_path: Path) -> None:
    recorded = [{"record": f"panel:{at}", "expr": expr} for at, expr in enumerate(drawn())]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in said("promtool", "check", "rules", file)


def test_alerts_and_dashboard_ask_only_for_what_the_node_says() -> None:
    for expression in [*drawn(), *(rule["expr"] for rule in rules())]:
        for name, labels in named(expression):
            assert name in METRICS, expression
            assert labels <= METRICS[name], expression


def test_the_node_says_exactly_that(tmp_path: Path, free_port: int) -> None:
    """And its health check is content with it as long as it runs."""
    text = running.toml(
        models={}, pacs={"ae_title": "PACS", "port": 104}, extra=f"[web]\nport = {free_port}"
    )
    with running.running(tmp_path / "node", text, command="serve") as node:
        answer = running.wait_for(lambda: metrics(free_port), what=f"the page\n{node.log}")
        command = [sys.executable, str(CONTAINERS / "healthy.py"), "receiver", str(node.file)]
        assert subprocess.run(command, check=False, timeout=60).returncode == 0
        node.stop()
        assert subprocess.run(command, check=False, timeout=60).returncode == 1
    families = list(text_string_to_metric_families(answer))
    families = [one for one in families if not one.name.endswith("_created")]  # when counting began
    given = {one.name + ("_total" if one.type == "counter" else "") for one in families}
    assert given == set(METRICS)
    for sample in (sample for family in families for sample in family.samples):
        assert set(sample.labels) == METRICS[sample.name], sample.name


def metrics(port: int) -> str | None:
    """What the page says of the node; None before there is one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.suppress(OSError), contextlib.closing(connection):
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    return None


def test_the_dashboard_shows_everything_that_the_node_says() -> None:
    shown = {name for expression in drawn() for name, _ in named(expression)}
    assert shown == set(METRICS)


def test_the_panels_of_the_dashboard_do_not_lie_on_each_other() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


# ── what is written about them ──────────────────────────────────────────────────────────────────


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_alert_has_its_section_in_the_runbook(rule: dict[str, Any]) -> None:
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (DEPLOY / file).is_file()
    assert anchor == rule["alert"].lower()
    assert f"### {rule['alert']}\n" in RUNBOOK
    assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_runbook_has_no_section_for_an_alert_that_is_none() -> None:
    sections = re.findall(r"^### (Dicomnode\w+)$", RUNBOOK, re.MULTILINE)
    assert sorted(sections) == sorted(rule["alert"] for rule in rules())


def test_every_reason_of_the_runbook_is_one() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("dicomnode", "workers")
        for path in (running.ROOT / folder).rglob("*.py")
    )
    _, _, tables = RUNBOOK.partition("## Reasons")
    tables, _, _ = tables.partition("## Upgrade")
    rows = re.findall(r"^\| (`.+?) \|", tables, re.MULTILINE)
    words = [word for row in rows for word in re.findall(r"`([a-z-]+)`", row)]
    assert len(words) > 50
    assert [word for word in words if f'"{word}"' not in sources] == []


@pytest.mark.parametrize("file", ["README.md", "guide.md", "runbook.md", "../README.md"])
def test_every_link_leads_somewhere(file: str) -> None:
    text = (DEPLOY / file).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https://)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        there = (DEPLOY / file).parent / path if path else DEPLOY / file
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), target


def test_every_unit_and_file_that_the_readme_installs_is_there() -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"(?<=[ '])deploy/[\w./-]+", text):
        assert (running.ROOT / path).exists(), path
    for unit in re.findall(r"`(dicomnode-[a-z]+)(?:@[\w:]+)?`", text):
        assert any(name.startswith(unit) for name in UNITS), unit
