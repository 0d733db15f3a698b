"""What `check` says of [audit]: of sense, of the files, and of the collector itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Authority
from collectors import collecting

from dicomnode import check

Check = Callable[..., dict[str, str]]


@pytest.fixture
def found(tmp_path: Path) -> Check:
    """Key path → the codes of what is wrong with [audit]."""

    def _found(audit: str, *, more: str = "", live: bool = False) -> dict[str, str]:
        path = tmp_path / "node.toml"
        path.write_text(f'[listen]\nhost = "127.0.0.1"\nport = 0\n{more}\n[audit]\n{audit}\n')
        problems = check.run(path, {}, live=live)
        codes: dict[str, list[str]] = defaultdict(list)
        for one in problems:
            if one.path.startswith("audit"):
                codes[one.path].append(one.code)
        return {path: " ".join(sorted(every)) for path, every in codes.items()}

    return _found


@pytest.mark.parametrize(
    ("audit", "problems"),
    [
        ("", {}),
        ('host = "10.0.0.9"', {}),
        ("port = 6514", {"audit.port": "audit-without-host"}),
        ('source_id = "x"', {"audit.source_id": "audit-without-host"}),
        ('host = "10.0.0.9"\ntransport = "udp"', {"audit.transport": "audit-in-the-clear"}),
        ('host = "10.0.0.9"\ntransport = "tcp"', {"audit.transport": "audit-in-the-clear"}),
        ('host = "127.0.0.1"\ntransport = "udp"', {}),
        ('host = "10.0.0.9"\ntls_name = ""', {"audit.tls_name": "any-certificate"}),
        (
            'host = "10.0.0.9"\nkey = "k"',
            {"audit.key": "tls-file-missing tls-incomplete"},
        ),
        ('host = "10.0.0.9"\nca = "not-there"', {"audit.ca": "tls-file-missing"}),
        ('host = "10.0.0.9"\nleave_out = ["querry"]', {"audit.leave_out[0]": "invalid-value"}),
        ('host = "10.0.0.9"\nleave_out = ["query"]', {}),
        ('host = "10.0.0.9"\nkeep_days = 0', {"audit.keep_days": "invalid-value"}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(found: Check, audit: str, problems: dict[str, str]) -> None:
    assert found(audit) == problems


def test_a_ca_that_is_none_is_told(found: Check, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("no certificate")
    said = found('host = "10.0.0.9"\nca = "ca.crt"')
    assert said == {"audit.ca": "ca-unusable"}


def test_a_collector_that_is_there_is_no_problem(found: Check, authority: Authority) -> None:
    node, theirs = authority.issue("node"), authority.issue("collector")
    tls = (
        f'[tls]\nca = "{authority.certificate}"\ncertificate = "{node.certificate}"\n'
        f'key = "{node.key}"'
    )
    with collecting(theirs, client_ca=str(authority.certificate)) as there:
        audit = f'host = "127.0.0.1"\nport = {there.port}'
        assert found(audit, more=tls, live=True) == {}
        assert there.framed == []
        only_ca = f'[tls]\nca = "{authority.certificate}"'
        assert found(audit, more=only_ca, live=True) == {"audit.host": "tls-failed"}
        there.stop()
        assert found(audit, more=tls, live=True) == {"audit.host": "collector-unreachable"}


def test_without_live_nobody_is_asked(found: Check) -> None:
    with collecting() as there:
        found(f'host = "127.0.0.1"\nport = {there.port}')
        assert there.connections == 0
