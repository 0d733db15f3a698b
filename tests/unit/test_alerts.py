"""Alerts and what else speaks of them: the rules of Prometheus, the runbook, the configuration."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicomnode import check, config
from dicomnode.alert import Kind
from dicomnode.alerting import room, signs
from dicomnode.config import Problem

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
GIB = 2**30
DAY_S = 86_400.0
#: What only somebody else can see, and what has a log of its own.
OF_OTHERS = {"DicomnodeDown", "DicomnodeAuditMessagesWait", "DicomnodeAuditMessagesDropped"}

EMAIL = '[alerts.email]\nhost = "mail.example"\nfrom = "n@h.example"\nto = ["t@h.example"]\n'
WEBHOOK = '[alerts.webhook]\nurl = "https://chat.example/hooks/TOKEN"\n'


def rules() -> dict[str, dict[str, Any]]:
    text = (DEPLOY / "monitoring" / "alerts.yaml").read_text(encoding="utf-8")
    found = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    return {rule["alert"]: rule for rule in found}


def test_the_node_and_prometheus_tell_of_the_same_under_the_same_names() -> None:
    assert {kind.rule for kind in Kind} == rules().keys() - OF_OTHERS


@pytest.mark.parametrize("kind", Kind)
def test_each_is_as_urgent_to_the_node_as_to_prometheus(kind: Kind) -> None:
    assert rules()[kind.rule]["labels"]["severity"] == kind.severity


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)([smh])", text)
    assert found is not None
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@pytest.mark.parametrize("kind", sorted(set(signs.PATIENCE_S) - {Kind.NOTHING_RECEIVED}))
def test_each_is_waited_for_as_long(kind: Kind) -> None:
    assert _seconds(rules()[kind.rule]["for"]) == signs.PATIENCE_S[kind]


def test_the_numbers_are_those_of_the_rules() -> None:
    found = rules()
    assert f"> {signs.QUEUE_OLD_S:.0f}" in found["DicomnodeQueueOld"]["expr"]
    assert (
        f"> {signs.DELIVERIES_OLD_S / 3600:.0f} * 3600" in (found["DicomnodeDeliveriesOld"]["expr"])
    )
    assert f">= {signs.FAIL_IN_A_ROW}" in found["DicomnodeEverythingFails"]["expr"]
    associations = config.Listen().max_associations
    assert (
        f"> {int(associations * signs.MANY_ASSOCIATIONS)}"
        in (found["DicomnodeManyAssociations"]["expr"])
    )
    slow_s = config.Worker().timeout_s * signs.SLOW_SHARE
    assert f"> {slow_s:.0f}" in found["DicomnodeModelSlow"]["expr"]
    down = config.Alerts().destination_down_minutes
    assert _seconds(found["DicomnodeDestinationDown"]["for"]) == down * 60


# ── The disk ────────────────────────────────────────────────────────────────────────────────────


def test_a_disk_that_fills_evenly_is_foreseen() -> None:
    trend = room.Trend()
    assert trend.in_a_day(0) is None
    for minute in range(90):
        trend.note(100 * GIB - minute * GIB // 60, at=minute * 60.0)
    found = trend.in_a_day(98 * GIB)
    assert found is not None
    assert found / GIB == pytest.approx(98 - 24, abs=0.1)


def test_less_than_an_hour_says_nothing_of_a_day() -> None:
    trend = room.Trend()
    for second in range(0, 3599, 5):
        trend.note(GIB, at=float(second))
    assert trend.in_a_day(GIB) is None


def test_a_clock_that_is_set_back_begins_anew() -> None:
    trend = room.Trend()
    for minute in range(90):
        trend.note(100 * GIB - minute * GIB, at=DAY_S + minute * 60.0)
    trend.note(100 * GIB, at=0.0)
    assert trend.in_a_day(100 * GIB) is None
    for minute in range(1, 90):
        trend.note(100 * GIB, at=minute * 60.0)
    assert trend.in_a_day(100 * GIB) == pytest.approx(100 * GIB)


def test_only_the_last_six_hours_count() -> None:
    trend = room.Trend()
    for minute in range(24 * 60):
        free = 50 - max(0, 60 - minute) if minute < 60 else 50
        trend.note(free * GIB, at=minute * 60.0)
    assert trend.in_a_day(50 * GIB) == pytest.approx(50 * GIB)


def test_a_folder_that_is_not_there_has_no_room(tmp_path: Path) -> None:
    assert room.look(tmp_path / "nowhere") is None
    seen = room.look(tmp_path)
    assert seen is not None
    assert seen.free_bytes > 0


# ── The configuration ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def found(tmp_path: Path) -> Callable[[str], dict[str, Problem]]:
    def _found(text: str) -> dict[str, Problem]:
        file = tmp_path / "node.toml"
        file.write_text(text)
        problems = check.run(file, {})
        return {one.path: one for one in problems if one.path.startswith("alerts")}

    return _found


def test_nobody_is_told_unless_somebody_says_so() -> None:
    assert config.Alerts().channels == ()


def test_sound_channels_have_no_problem(found: Callable[[str], dict[str, Problem]]) -> None:
    assert found(EMAIL + WEBHOOK) == {}


@pytest.mark.parametrize(
    ("text", "path", "code"),
    [
        ('[alerts.email]\nhost = "mail.example"\n', "alerts.email.from", "missing-key"),
        (EMAIL.replace("n@h.example", "n"), "alerts.email.from", "invalid-value"),
        (EMAIL.replace('["t@h.example"]', "[]"), "alerts.email.to", "invalid-value"),
        (EMAIL + 'security = "ssl"\n', "alerts.email.security", "invalid-value"),
        (EMAIL + 'user = "u"\n', "alerts.email.user", "sign-in-incomplete"),
        (EMAIL + 'password_file = "/"\n', "alerts.email.password_file", "secret-file-missing"),
        (EMAIL + 'usr = "u"\n', "alerts.email.usr", "unknown-key"),
        ("[alerts.webhook]\n", "alerts.webhook", "url-or-url-file"),
        (WEBHOOK + 'url_file = "u"\n', "alerts.webhook", "url-or-url-file"),
        ('[alerts.webhook]\nurl = "ftp://x/TOKEN"\n', "alerts.webhook.url", "invalid-value"),
        ('[alerts.webhook]\nurl = "https://[x/TOKEN"\n', "alerts.webhook.url", "invalid-value"),
        ("[alerts]\nrepeat_hours = 0\n", "alerts.repeat_hours", "invalid-value"),
        ('[alerts]\nignore = ["slow"]\n', "alerts.ignore[0]", "invalid-value"),
        ("[alerts]\nwebhok = 1\n", "alerts.webhok", "unknown-key"),
        (WEBHOOK.replace("https", "http"), "alerts.webhook.url", "webhook-in-the-clear"),
    ],
)
def test_each_fault_is_told_by_its_path(
    found: Callable[[str], dict[str, Problem]], text: str, path: str, code: str
) -> None:
    problems = found(text)
    assert problems[path].code == code
    assert all("TOKEN" not in one.message for one in problems.values())


def test_a_password_in_the_clear_is_a_warning(
    found: Callable[[str], dict[str, Problem]], tmp_path: Path
) -> None:
    (tmp_path / "p").write_text("secret")
    (tmp_path / "p").chmod(0o600)
    signed = 'security = "none"\nuser = "u"\npassword_file = "p"\n'
    assert found(EMAIL + signed)["alerts.email.security"].code == "mail-in-the-clear"
    assert found(EMAIL.replace("mail.example", "127.0.0.1") + signed) == {}


def test_files_that_are_missing_or_open_to_all(
    found: Callable[[str], dict[str, Problem]], tmp_path: Path
) -> None:
    text = (
        EMAIL + 'user = "u"\npassword_file = "p"\nca = "ca.crt"\n'
        '[alerts.webhook]\nurl_file = "url"\nsecret_file = "signing"\n'
    )
    assert {path: one.code for path, one in found(text).items()} == {
        "alerts.email.password_file": "secret-file-missing",
        "alerts.email.ca": "alert-ca-unreadable",
        "alerts.webhook.url_file": "secret-file-missing",
        "alerts.webhook.secret_file": "secret-file-missing",
    }
    for name, content in (("p", "x"), ("ca.crt", "none"), ("url", "ftp://x"), ("signing", "s")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    assert {path: one.code for path, one in found(text).items()} == {
        "alerts.email.ca": "alert-ca-unreadable",
        "alerts.webhook.url_file": "webhook-url-unreadable",
        "alerts.webhook.secret_file": "webhook-secret-unreadable",
    }
    (tmp_path / "p").chmod(0o644)
    assert found(text)["alerts.email.password_file"].code == "secret-open-to-all"


def test_the_address_of_a_webhook_is_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(WEBHOOK)
    read = config.load(file, {})
    assert "TOKEN" not in repr(read)
    assert "TOKEN" not in read.model_dump_json()
