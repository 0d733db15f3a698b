"""`check`: every problem of shape, sense, place and peers, all in one pass."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from certificates import Authority, Issued, TlsTable
from pynetdicom import AE, evt

from dicomnode import bundle, check
from dicomnode.config import Problem
from dicomnode.network.tls import Certificates

HOST = "127.0.0.1"
GIB = 1024**3

LISTEN = '[listen]\nhost = "127.0.0.1"\nport = 0\n'
PACS = '[peers.pacs]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 4242\n'
MODEL = '[models.brain]\nbundle = "brain"\n'
ROUTE = """
[[routes]]
name = "volumetry"
model = "brain"
series = { Modality = "MR" }
send_to = ["pacs"]
"""
SOUND = LISTEN + PACS + MODEL + ROUTE

MANIFEST = """
name = "Brain"
manufacturer = "Nobody"
intended_use = "Tests."
notice = "Research use only"
family = { value = "123109", scheme = "DCM", meaning = "Artificial Intelligence" }
procedure = { value = "241601008", scheme = "SCT", meaning = "MRI of head" }

[[outputs.mask.segments]]
label = 1
name = "Brain"
category = { value = "123037004", scheme = "SCT", meaning = "Anatomical Structure" }
type = { value = "12738006", scheme = "SCT", meaning = "Brain" }
color = "#ff0000"
"""


def make_bundle(root: Path, *, inputs: tuple[str, ...] = ("image",)) -> Path:
    """A locked bundle with one file of "weights"."""
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "metadata.json").write_text('{"version": "1.0.0"}')
    (root / "weights.bin").write_bytes(b"\0" * 16)
    wanted = "".join(
        f'[inputs.{name}]\nmodality = "MR"\nsop_classes = ["MRImageStorage"]\n' for name in inputs
    )
    kind = '[outputs.mask]\nkind = "label_map"\n'
    head, segments = MANIFEST.split("[[outputs", maxsplit=1)
    (root / "dicom.toml").write_text(f"{head}{wanted}{kind}[[outputs{segments}")
    bundle.write_lock(root)
    return root


Check = Callable[..., dict[str, Problem]]


@pytest.fixture
def found(tmp_path: Path) -> Check:
    """The problems of a text as a configuration, by their key paths."""

    def _found(text: str, *, live: bool = False) -> dict[str, Problem]:
        path = tmp_path / "node.toml"
        path.write_text(text, encoding="utf-8")
        problems = check.run(path, {}, live=live)
        by_path = {problem.path: problem for problem in problems}
        assert len(by_path) == len(problems), problems
        return by_path

    return _found


@pytest.fixture
def brain(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "brain")


@pytest.fixture(autouse=True)
def roomy_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is free on the disk of the test machine is no matter of these tests."""
    usage = SimpleNamespace(free=2 * GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def test_a_sound_configuration_in_its_place_has_no_problem(found: Check, brain: Path) -> None:
    assert found(SOUND) == {}


def test_looking_creates_nothing(found: Check, brain: Path, tmp_path: Path) -> None:
    found(SOUND)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["brain", "node.toml"]


def test_six_faults_of_shape_sense_and_place_are_told_in_one_pass(
    found: Check, tmp_path: Path
) -> None:
    (tmp_path / "occupied").write_text("")
    problems = found(
        '[node]\ndata_dir = "occupied/data"\n[database]\nurl = "sqlite:///node.db"\n'
        '[listen]\nhost = "127.0.0.1"\nport = "11112"\n'
        '[peers.pacs]\nae_title = "PACS"\nhost = "127.0.0.1"\n'
        + MODEL
        + ROUTE.replace("Modality", "Modalty").replace('"brain"', '"brian"')
    )
    expected = {
        "listen.port": "wrong-type",
        "routes[0].series.Modalty": "invalid-value",
        "routes[0].model": "unknown-model",
        "routes[0].send_to[0]": "destination-without-port",
        "node.data_dir": "data-dir-not-writable",
        "models.brain.bundle": "bundle-missing",
    }
    assert {path: problem.code for path, problem in problems.items()} == expected
    text = check.as_text(tuple(problems.values()))
    assert all(f"error: {path}: " in text for path in expected)
    assert text.endswith("6 errors, 0 warnings.")


def test_what_cannot_be_read_at_all_is_the_only_problem(found: Check) -> None:
    (problem,) = found("[node\n", live=True).values()
    assert problem.code == "syntax"


# ── Folders, disk, port ─────────────────────────────────────────────────────────────────────────


def test_a_data_folder_below_a_file_is_an_error(found: Check, brain: Path) -> None:
    (brain / ".." / "occupied").resolve().write_text("")
    problems = found('[node]\ndata_dir = "occupied"\n' + SOUND)
    assert problems["node.data_dir"].level == "error"


def test_a_folder_that_may_not_be_written_is_an_error(
    found: Check, brain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everywhere, so the system's answer stands in for its question.
    monkeypatch.setattr(os, "access", lambda *_: False)
    problems = found(SOUND)
    assert problems["node.data_dir"].code == "data-dir-not-writable"
    assert problems["database.url"].code == "database-not-writable"


def test_a_database_file_that_is_a_folder_is_an_error(
    found: Check, brain: Path, tmp_path: Path
) -> None:
    (tmp_path / "data" / "node.db").mkdir(parents=True)
    assert found(SOUND)["database.url"].code == "database-not-writable"


def test_a_nearly_full_disk_is_a_warning(
    found: Check, brain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=2 * GIB - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    problem = found(SOUND)["node.data_dir"]
    assert (problem.level, problem.code) == ("warning", "disk-nearly-full")
    assert found("[disk]\nmin_free_gib = 1.5\n" + SOUND) == {}


def test_a_port_that_needs_a_privilege_is_a_warning(
    found: Check, brain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind = socket.socket.bind

    def refuse(probe: socket.socket, address: tuple[str, int]) -> None:
        if address[1] == 104:
            raise PermissionError(13, "Permission denied")
        bind(probe, address)

    monkeypatch.setattr(socket.socket, "bind", refuse)
    (problem,) = found(SOUND.replace("port = 0", "port = 104")).values()
    assert (problem.path, problem.level) == ("listen.port", "warning")
    assert problem.code == "privileged-port"


def test_an_address_that_is_not_of_this_machine_is_an_error(found: Check, brain: Path) -> None:
    text = SOUND.replace("127.0.0.1", "192.0.2.1", 1)
    assert found(text)["listen.host"].code == "address-not-here"


def test_a_name_that_does_not_resolve_is_an_error(
    found: Check, brain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def know_nothing(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", know_nothing)
    problem = found(SOUND)["listen.host"]
    assert problem.code == "address-not-here"
    assert "not known" in problem.message


def test_a_port_in_use_is_no_problem_since_the_node_may_be_running(
    found: Check, brain: Path
) -> None:
    with socket.create_server((HOST, 0)) as running:
        port = running.getsockname()[1]
        assert found(SOUND.replace("port = 0", f"port = {port}")) == {}


# ── Certificates ────────────────────────────────────────────────────────────────────────────────


def tls(ours: Issued, authority: Authority) -> str:
    return (
        f'[tls]\nport = 0\ncertificate = "{ours.certificate}"\nkey = "{ours.key}"\n'
        f'ca = "{authority.certificate}"\n'
    )


def test_certificates_that_are_sound_are_no_problem(
    found: Check, brain: Path, authority: Authority
) -> None:
    assert found(SOUND + tls(authority.issue("node"), authority)) == {}


def test_each_file_of_tls_that_is_missing_is_an_error(found: Check, brain: Path) -> None:
    files = 'certificate = "a"\nkey = "b"\nkey_password_file = "c"\nca = "d"\n'
    problems = found(SOUND + "[tls]\n" + files)
    assert {path: problem.code for path, problem in problems.items()} == dict.fromkeys(
        ("tls.certificate", "tls.key", "tls.key_password_file", "tls.ca"), "tls-file-missing"
    )


def test_a_key_of_another_certificate_is_an_error(
    found: Check, brain: Path, authority: Authority
) -> None:
    mixed = Issued(
        certificate=authority.issue("node").certificate, key=authority.issue("other").key
    )
    problem = found(SOUND + tls(mixed, authority))["tls.key"]
    assert problem.code == "key-unusable"
    assert "is not the key of" in problem.message


def test_a_certificate_without_its_key_is_told_once(
    found: Check, brain: Path, authority: Authority
) -> None:
    certificate = authority.issue("node").certificate
    assert set(found(SOUND + f'[tls]\ncertificate = "{certificate}"\n')) == {"tls.certificate"}


@pytest.mark.parametrize(
    ("days", "code"), [(-1, "certificate-expired"), (20, "certificate-expires-soon")]
)
def test_a_certificate_that_ends_is_a_warning(
    found: Check, brain: Path, authority: Authority, days: int, code: str
) -> None:
    (problem,) = found(SOUND + tls(authority.issue("node", days=days), authority)).values()
    assert (problem.path, problem.level) == ("tls.certificate", "warning")
    assert problem.code == code


def test_a_key_that_everybody_can_read_is_a_warning(
    found: Check, brain: Path, authority: Authority
) -> None:
    ours = authority.issue("node")
    ours.key.chmod(0o644)
    (problem,) = found(SOUND + tls(ours, authority)).values()
    assert (problem.path, problem.level) == ("tls.key", "warning")
    assert problem.code == "key-open-to-all"


# ── Who may come, where it goes ─────────────────────────────────────────────────────────────────


def test_a_node_open_to_anyone_is_a_warning(found: Check, brain: Path) -> None:
    problem = found(SOUND.replace("port = 0", "port = 0\naccept_unknown_peers = true"))
    assert problem["listen.accept_unknown_peers"].level == "warning"


def test_a_node_without_peers_and_routes_is_two_warnings(found: Check) -> None:
    problems = found(LISTEN)
    assert {path: problem.level for path, problem in problems.items()} == {
        "peers": "warning",
        "routes": "warning",
    }


def test_a_route_that_sends_nowhere_is_an_error(found: Check, brain: Path) -> None:
    assert found(SOUND.replace('["pacs"]', "[]"))["routes[0].send_to"].level == "error"


# ── Bundles ─────────────────────────────────────────────────────────────────────────────────────


def test_a_bundle_without_a_manifest_is_an_error(found: Check, brain: Path) -> None:
    (brain / "dicom.toml").unlink()
    assert "dicom.toml" in found(SOUND)["models.brain.bundle"].message


def test_a_bundle_with_a_faulty_manifest_and_a_changed_file_is_two_errors(
    tmp_path: Path, brain: Path
) -> None:
    (brain / "dicom.toml").write_text("name = 3\n")
    path = tmp_path / "node.toml"
    path.write_text(SOUND)
    problems = check.run(path, {})
    assert [problem.path for problem in problems] == ["models.brain.bundle"] * 2
    assert [problem.code for problem in problems] == ["manifest-faulty", "bundle-changed"]


def test_a_bundle_without_a_lock_is_an_error(found: Check, brain: Path) -> None:
    (brain / "bundle.lock").unlink()
    problem = found(SOUND)["models.brain.bundle"]
    assert problem.code == "lock-missing"
    assert "dicomnode models lock" in problem.message


def test_a_changed_weight_is_an_error_that_names_the_file(found: Check, brain: Path) -> None:
    (brain / "weights.bin").write_bytes(b"\1")
    assert "weights.bin" in found(SOUND)["models.brain.bundle"].message


def test_a_manifest_elsewhere_is_looked_for_there(found: Check, tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "brain")
    elsewhere = tmp_path / "brain.toml"
    text = SOUND.replace('bundle = "brain"', 'bundle = "brain"\nmanifest = "brain.toml"')
    assert found(text)["models.brain.manifest"].code == "manifest-missing"
    (root / "dicom.toml").rename(elsewhere)
    bundle.write_lock(root, manifest=elsewhere)
    assert found(text) == {}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ('inputs.t1 = { Modality = "MR" }\ninputs.flair = { Modality = "MR" }', {}),
        ('series = { Modality = "MR" }', {"routes[0].series": "several-inputs"}),
        ('inputs.t1 = { Modality = "MR" }', {"routes[0].inputs": "missing-input"}),
        (
            'inputs.t1 = { Modality = "MR" }\ninputs.flare = { Modality = "MR" }',
            {"routes[0].inputs.flare": "unknown-input", "routes[0].inputs": "missing-input"},
        ),
        (  # also where the route has a fault of its own
            'series = { Modalty = "MR" }',
            {"routes[0].series.Modalty": "invalid-value", "routes[0].series": "several-inputs"},
        ),
    ],
)
def test_a_route_names_exactly_the_inputs_of_its_model(
    found: Check, tmp_path: Path, asked: str, expected: dict[str, str]
) -> None:
    make_bundle(tmp_path / "brain", inputs=("t1", "flair"))
    problems = found(SOUND.replace('series = { Modality = "MR" }', asked))
    assert {path: problem.code for path, problem in problems.items()} == expected


# ── Live ────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def pacs(security: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a peer that answers C-ECHO to whoever calls it PACS."""
    ae = AE(ae_title="PACS")
    ae.add_supported_context("1.2.840.10008.1.1")  # Verification SOP Class, PS3.4 A.4
    ae.require_called_aet = True
    server = ae.start_server(
        (HOST, 0),
        block=False,
        evt_handlers=[(evt.EVT_C_ECHO, lambda _: 0)],
        ssl_context=security,
    )
    assert server is not None
    assert server.socket is not None
    yield server.socket.getsockname()[1]
    server.shutdown()


@pytest.fixture
def pacs_port() -> Iterator[int]:
    """The port of a peer that is called plainly."""
    with pacs() as port:
        yield port


def test_a_destination_that_answers_is_no_problem(
    found: Check, brain: Path, pacs_port: int
) -> None:
    assert found(SOUND.replace("4242", str(pacs_port)), live=True) == {}


def test_destinations_that_refuse_or_are_away_are_errors_when_live(
    found: Check, brain: Path, pacs_port: int, free_port: int
) -> None:
    text = (
        SOUND.replace("4242", str(free_port))
        + f'[peers.other]\nae_title = "OTHER"\nhost = "{HOST}"\nport = {pacs_port}\n'
        + f'[peers.scanner]\nae_title = "CT1"\nhost = "{HOST}"\n'
    )
    assert found(text) == {}
    problems = found(text, live=True)
    assert set(problems) == {"peers.pacs", "peers.other"}
    assert {problem.level for problem in problems.values()} == {"error"}


def test_each_place_where_a_peer_is_called_is_asked_once(
    found: Check, brain: Path, pacs_port: int, free_port: int
) -> None:
    text = SOUND.replace("4242", str(pacs_port)).replace(
        MODEL, f"query = {{ port = {free_port} }}\ncommitment = {{ port = {pacs_port} }}\n" + MODEL
    )
    assert set(found(text, live=True)) == {"peers.pacs.query"}


def test_a_destination_with_tls_is_called_with_the_certificates_of_tls(
    found: Check, brain: Path, authority: Authority
) -> None:
    theirs, ours = authority.issue("pacs"), authority.issue("node")
    table = TlsTable(certificate=theirs.certificate, key=theirs.key, ca=authority.certificate)
    with pacs(Certificates(table).server()) as port:
        text = SOUND.replace("4242", f"{port}\ntls = true")
        assert found(text + tls(ours, authority), live=True) == {}
        assert found(text, live=True)["peers.pacs"].code == "tls-failed"  # who has signed it?


def test_a_destination_without_tls_that_is_called_with_it_is_an_error_when_live(
    found: Check, brain: Path, pacs_port: int
) -> None:
    text = SOUND.replace("4242", f"{pacs_port}\ntls = true")
    assert found(text, live=True)["peers.pacs"].code == "tls-failed"


def test_a_broker_and_a_database_server_that_are_away_are_errors_when_live(
    found: Check, brain: Path, free_port: int
) -> None:
    text = (
        SOUND.replace("port = 4242\n", "").replace(ROUTE, "")
        + f'[queue]\nbroker = "redis://{HOST}:{free_port}/0"\n'
        + f'[database]\nurl = "postgresql+psycopg://nobody@{HOST}:{free_port}/none"\n'
    )
    assert set(found(text)) == {"routes"}
    problems = found(text, live=True)
    assert problems["queue.broker"].code == "broker-unreachable"
    assert problems["database.url"].code == "database-unavailable"


def test_what_is_no_redis_is_an_error_when_live(found: Check, brain: Path) -> None:
    with socket.create_server((HOST, 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        port = server.getsockname()[1]
        queue = f'[queue]\nbroker = "redis://{HOST}:{port}"\n'
        problem = found(LISTEN + queue, live=True)["queue.broker"]
        answering.join()
    assert problem.code == "broker-refused"
    assert "400 Bad Request" in problem.message


# ── What a command prints ───────────────────────────────────────────────────────────────────────

ERROR = Problem(level="error", path="listen.port", message="Expects a number.", code="wrong-type")
WARNING = Problem(level="warning", path="routes", message="There is none.", code="no-routes")


@pytest.mark.parametrize(
    ("problems", "code"), [((), 0), ((WARNING,), 1), ((WARNING, ERROR), 2), ((ERROR,), 2)]
)
def test_the_exit_code_tells_the_gravest_problem(problems: tuple[Problem, ...], code: int) -> None:
    assert check.exit_code(problems) == code


def test_the_text_has_a_line_for_each_problem_and_a_count() -> None:
    assert check.as_text((ERROR, WARNING)).splitlines() == [
        "error: listen.port: Expects a number. [wrong-type]",
        "warning: routes: There is none. [no-routes]",
        "1 error, 1 warning.",
    ]
    assert check.as_text(()) == "No problems."


def test_the_json_is_one_document() -> None:
    assert json.loads(check.as_json((WARNING,))) == {
        "exit_code": 1,
        "problems": [
            {
                "level": "warning",
                "path": "routes",
                "message": "There is none.",
                "code": "no-routes",
            }
        ],
    }
