"""The configuration: what it says, what it refuses, and that all refusals come at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from dicomnode import config, matcher
from dicomnode.config import Address, Configuration, ConfigurationError, Endpoint, Problem
from dicomnode.config.tree import COLLECTIONS, SECTIONS, keys
from dicomnode.errors import Misconfigured
from dicomnode.job import Priority
from dicomnode.profile import NAMED

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"

TLS = '[tls]\nport = 2762\ncertificate = "node.crt"\nkey = "node.key"\nca = "ca.crt"\n'
PACS = '[peers.pacs]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 4242\n'
MODEL = '[models.brain]\nbundle = "models/brain"\n'


def route(**keys: str) -> str:
    """A route; a key is TOML text, and `""` leaves it out."""
    lines = {
        "name": '"volumetry"',
        "model": '"brain"',
        "series": '{ Modality = "MR" }',
        "send_to": '["pacs"]',
        **keys,
    }
    return "[[routes]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items() if value)


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str) -> Path:
        path = tmp_path / "node.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def found(path: Path, environ: dict[str, str] | None = None) -> dict[str, Problem]:
    """The problems of a file by their key paths."""
    problems = config.read(path, environ or {}).problems
    by_path = {problem.path: problem for problem in problems}
    assert len(by_path) == len(problems), problems
    return by_path


# ── What it says ────────────────────────────────────────────────────────────────────────────────


def test_an_empty_file_has_a_value_for_every_key(write: Write, tmp_path: Path) -> None:
    configuration = config.load(write(""), {})
    assert configuration.node.ae_title == "DICOMNODE"
    assert configuration.node.data_dir == tmp_path / "data"
    assert configuration.listen.port == 11112
    assert not configuration.listen.accept_unknown_peers
    assert configuration.database.url == f"sqlite:///{tmp_path}/data/node.db"
    assert configuration.queue.broker == "memory://"
    assert configuration.worker.timeout_s == 600
    assert configuration.worker.lease_s == 15
    assert configuration.worker.attempts == 3
    assert configuration.deliver.retry_s == 5
    assert configuration.deliver.retry_max_s == 600
    assert configuration.listen.reactor == "streaming"
    assert configuration.listen.max_associations == 256
    assert configuration.listen.max_associations_per_peer == 64
    assert configuration.listen.max_pdu_kib == 128
    assert configuration.tls.port is None
    assert configuration.tls.client_certificates == "required"
    assert configuration.disk.min_free_gib == 2
    assert configuration.disk.floor_gib == 0.5
    assert configuration.disk.keep_delivered_days is None
    assert configuration.routes == ()


def test_a_route_carries_its_matchers_and_its_priority(write: Write) -> None:
    series = '{ Modality = ["CT", "MR"], EchoTime = "<20", instances = ">=16" }'
    text = PACS + MODEL + route(series=series, priority='"stat"')
    (read,) = config.load(write(text), {}).routes
    assert read.series == {
        "Modality": matcher.parse(["CT", "MR"]),
        "EchoTime": matcher.parse("<20"),
        "instances": matcher.parse(">=16"),
    }
    assert read.inputs is None
    assert read.send_to == ("pacs",)
    assert read.priority is Priority.STAT


def test_a_route_of_several_inputs_has_matchers_for_each(write: Write) -> None:
    inputs = '{ t1 = { Modality = "MR" }, flair = { InversionTime = { exists = true } } }'
    (read,) = config.load(write(PACS + MODEL + route(series="", inputs=inputs)), {}).routes
    assert read.series is None
    assert read.inputs == {
        "t1": {"Modality": matcher.parse("MR")},
        "flair": {"InversionTime": matcher.parse({"exists": True})},
    }


def test_paths_start_from_the_folder_of_the_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        '[node]\ndata_dir = "kept"\n[database]\nurl = "sqlite:///kept/rows.db"\n'
        '[models.brain]\nbundle = "../bundles/brain"\nmanifest = "/srv/brain.toml"\n'
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for given in (path, Path("../node.toml")):
        configuration = config.load(given, {})
        assert configuration.node.data_dir.is_absolute()
        assert configuration.node.data_dir.resolve() == tmp_path / "kept"
        file = config.sqlite_file(configuration.database.url)
        assert file is not None
        assert file.is_absolute()
        assert file.resolve() == tmp_path / "kept" / "rows.db"
        model = configuration.models["brain"]
        assert model.bundle.resolve() == tmp_path.parent / "bundles" / "brain"
        assert model.manifest == Path("/srv/brain.toml")


def test_an_absolute_database_path_stays_as_it_is(write: Write) -> None:
    path = write('[database]\nurl = "sqlite:////srv/rows.db"\n')
    assert config.load(path, {}).database.url == "sqlite:////srv/rows.db"


def test_a_peer_is_one_title_at_one_host_or_several_of_either(write: Write) -> None:
    text = PACS + '[peers.ct1]\nae_title = ["CT1", " CT1_B "]\nhost = ["10.0.0.5", "ct1-b"]\n'
    peers = config.load(write(text), {}).peers
    assert (peers["pacs"].ae_titles, peers["pacs"].hosts) == (("PACS",), ("127.0.0.1",))
    assert (peers["pacs"].ae_title, peers["pacs"].host) == ("PACS", "127.0.0.1")
    assert (peers["ct1"].ae_titles, peers["ct1"].hosts) == (
        ("CT1", "CT1_B"),
        ("10.0.0.5", "ct1-b"),
    )
    assert (peers["ct1"].ae_title, peers["ct1"].host) == ("CT1", "10.0.0.5")


def test_a_peer_answers_each_service_where_it_does_all_others_unless_told(write: Write) -> None:
    text = PACS + (
        "tls = true\n"
        'query = { ae_title = "PACS_Q", host = "10.0.0.6", port = 104 }\n'
        "commitment = { port = 105 }\n"
    )
    peer = config.load(write(text), {}).peers["pacs"]
    assert peer.storage_at == Address(
        ae_title="PACS", host="127.0.0.1", port=4242, tls=True, tls_name="127.0.0.1"
    )
    assert peer.query_at == Address(
        ae_title="PACS_Q", host="10.0.0.6", port=104, tls=True, tls_name="10.0.0.6"
    )
    assert peer.commitment_at == replace(peer.storage_at, port=105)


def test_a_peer_without_a_port_is_called_only_where_a_service_has_one(write: Write) -> None:
    text = PORTLESS + 'commitment = { port = 104 }\ntls_name = "ct1.example"\n'
    peer = config.load(write(text), {}).peers["ct1"]
    assert peer.storage_at is None
    assert peer.query_at is None
    assert peer.commitment_at == Address(
        ae_title="CT1", host="10.0.0.5", port=104, tls=False, tls_name="ct1.example"
    )


def test_the_files_of_tls_start_from_the_folder_of_the_file(write: Write, tmp_path: Path) -> None:
    tls = config.load(write(TLS), {}).tls
    assert tls.port == 2762
    assert (tls.certificate, tls.key) == (tmp_path / "node.crt", tmp_path / "node.key")
    assert tls.ca == tmp_path / "ca.crt"


def test_the_tree_is_frozen(write: Write) -> None:
    configuration = config.load(write(""), {})
    with pytest.raises(ValidationError, match="frozen"):
        configuration.listen.port = 104  # type: ignore[misc]  # that is what is tried


def test_a_password_comes_from_its_file_and_is_not_shown(write: Write, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("p@ss:word/\n")
    configuration = config.load(
        write(
            '[database]\nurl = "postgresql+psycopg://node@db/rows"\npassword_file = "secret"\n'
            '[queue]\nbroker = "redis://queue:6379/0"\npassword_file = "secret"\n'
        ),
        {},
    )
    assert configuration.database.url == "postgresql+psycopg://node:p%40ss%3Aword%2F@db/rows"
    assert configuration.queue.broker == "redis://:p%40ss%3Aword%2F@queue:6379/0"
    assert "p%40ss" not in repr(configuration)


def test_a_password_that_would_be_taken_for_a_host_is_refused(write: Write) -> None:
    path = write('[database]\nurl = "postgresql+psycopg://node:s3@cr3t@db/rows"\n')
    with pytest.raises(ConfigurationError, match="write %40") as refused:
        config.load(path, {})
    assert "cr3t" not in str(refused.value)
    assert "cr3t" not in str([str(one) for one in refused.value.problems])


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_password_file_that_is_missing_or_empty_is_refused(
    write: Write, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "secret").write_text(content)
    path = write('[queue]\nbroker = "redis://queue"\npassword_file = "secret"\n')
    assert str(tmp_path / "secret") in found(path)["queue.broker"].message


# ── Overrides ───────────────────────────────────────────────────────────────────────────────────


def test_the_environment_overrides_keys_of_every_kind(write: Write, tmp_path: Path) -> None:
    environ = {
        "DICOMNODE__LISTEN__PORT": "104",
        "dicomnode__listen__Accept_Unknown_Peers": "true",
        "DICOMNODE__WORKER__DEVICE": "cuda:1",
        "DICOMNODE__COMPLETE__QUIET_S": "0.5",
        "DICOMNODE__NODE__DATA_DIR": "other",
        "DICOMNODE__PEERS__PACS__HOST": "10.0.0.9",
        "DICOMNODE__PEERS__PACS__AE_TITLE": '["PACS", "PACS_B"]',
        "DICOMNODE__PEERS__PACS__COMMITMENT": "{ port = 105 }",
        "DICOMNODE__TLS__CLIENT_CERTIFICATES": "none",
        "DICOMNODE__DISK__FLOOR_GIB": "1.5",
        "DICOMNODE__MODELS__BRAIN__BUNDLE": '"quoted"',
        "DICOMNODE__ROUTES__0__PRIORITY": "stat",
        "DICOMNODE__ROUTES__0__SEND_TO": '["pacs"]',
        "PATH": "not for us",
        "DICOMNODE_SERVICE_HOST": "10.0.0.1",
    }
    configuration = config.load(write(PACS + MODEL + route(send_to='["nobody"]')), environ)
    assert configuration.listen.port == 104
    assert configuration.listen.accept_unknown_peers
    assert configuration.worker.device == "cuda:1"
    assert configuration.complete.quiet_s == 0.5
    assert configuration.node.data_dir == tmp_path / "other"
    assert configuration.peers["pacs"].hosts == ("10.0.0.9",)
    assert configuration.peers["pacs"].ae_titles == ("PACS", "PACS_B")
    assert configuration.peers["pacs"].commitment == Endpoint(port=105)
    assert configuration.tls.client_certificates == "none"
    assert configuration.disk.floor_gib == 1.5
    assert configuration.models["brain"].bundle == tmp_path / "quoted"
    assert configuration.routes[0].priority is Priority.STAT


def test_the_environment_of_the_process_is_the_one_that_is_read(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DICOMNODE__LISTEN__PORT", "104")
    assert config.load(write("")).listen.port == 104


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("DICOMNODE__LISTN__PORT", '"listen"'),
        ("DICOMNODE__LISTEN__PROT", '"port"'),
        ("DICOMNODE__PEERS__PCS__PORT", '"pacs"'),
        ("DICOMNODE__PEERS__PACS__PRT", '"port"'),
        ("DICOMNODE__PEERS__PACS__HOSTS", '"host"'),
        ("DICOMNODE__DISK__FLOOR", '"floor_gib"'),
        ("DICOMNODE__ROUTES__1__NAME", "Known are: 0"),
        ("DICOMNODE__LISTEN", "DICOMNODE__LISTEN__KEY"),
        ("DICOMNODE__PEERS__PACS", "DICOMNODE__PEERS__NAME__KEY"),
        ("DICOMNODE__LISTEN__PORT__X", "DICOMNODE__LISTEN__KEY"),
        ("DICOMNODE__LISTEN_PORT", "names nothing"),
        ("DICOMNODE_LISTEN_PORT", "DICOMNODE__LISTEN__PORT"),
        ("DICOMNODE_LISTEN__PORT", "DICOMNODE__LISTEN__PORT"),
    ],
)
def test_a_misspelt_override_is_an_error_that_names_the_variable(
    write: Write, variable: str, hint: str
) -> None:
    path = write(PACS + MODEL + route())
    problem = found(path, {variable: "1"})[variable]
    assert problem.level == "error"
    assert problem.code == "misspelt-override"
    assert hint in problem.message
    with pytest.raises(ConfigurationError, match=variable):
        config.load(path, {variable: "1"})


def test_an_override_with_a_bad_value_names_both_key_and_variable(write: Write) -> None:
    environ = {"DICOMNODE__LISTEN__PORT": "http"}
    problem = found(write("[listen]\nport = 11112\n"), environ)["listen.port"]
    assert "whole number" in problem.message
    assert "DICOMNODE__LISTEN__PORT" in problem.message


def test_an_override_cannot_bring_in_a_second_key(write: Write) -> None:
    environ = {"DICOMNODE__WORKER__DEVICE": '"cpu"\nslots = 9'}
    assert "worker.device" in found(write(""), environ)


def test_an_override_of_what_is_no_table_leaves_that_fault_to_be_reported(write: Write) -> None:
    assert set(found(write("listen = 5\n"), {"DICOMNODE__LISTEN__PORT": "104"})) == {"listen"}


# ── Faults of shape ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "path", "hint"),
    [
        ("colour = 1\n", "colour", "no such key"),
        ("[lisen]\nport = 1\n", "lisen", '"listen"'),
        ("[listen]\nprot = 1\n", "listen.prot", '"port"'),
        ('[listen]\nport = "104"\n', "listen.port", "whole number, not text"),
        ("[listen]\nport = 70000\n", "listen.port", "65535"),
        ("[listen]\nport = true\n", "listen.port", "not a truth value"),
        ("[listen]\nprocesses = 0\n", "listen.processes", "1"),
        ('[listen]\nhost = ""\n', "listen.host", "machine alone"),
        ('[listen]\nhost = "a..b"\n', "listen.host", "machine alone"),
        ('[listen]\nhost = "10.0.0.5:104"\n', "listen.host", "machine alone"),
        ("[listen]\nmax_associations = 0\n", "listen.max_associations", "1"),
        ("[listen]\nmax_pdu_kib = 2\n", "listen.max_pdu_kib", "4"),
        ("[listen]\nmax_pdu_kib = 2048\n", "listen.max_pdu_kib", "1024"),
        ("[listen]\nmax_instance_gib = 0\n", "listen.max_instance_gib", "greater than 0"),
        ("[listen]\nidle_s = 0\n", "listen.idle_s", "greater than 0"),
        ('[listen]\nreactor = "fast"\n', "listen.reactor", "'streaming' or 'stock'"),
        (TLS.replace("2762", "70000"), "tls.port", "65535"),
        ('[tls]\nclient_certificates = "some"\n', "tls.client_certificates", "'none'"),
        ("[disk]\nkeep_delivered_days = 0\n", "disk.keep_delivered_days", "greater than 0"),
        ("[disk]\nmin_free = 2\n", "disk.min_free", '"min_free_gib"'),
        ("listen = 5\n", "listen", "a table, not a whole number"),
        ("[node]\ndata_dir = 5\n", "node.data_dir", "text in quotes"),
        ('[node]\ndata_dir = "~/data"\n', "node.data_dir", "~"),
        ('[worker]\ndevice = "gpu"\n', "worker.device", '"cuda:0"'),
        ('[worker]\ndevice = "cuda"\n', "worker.device", '"cuda:0"'),
        ("[worker]\ntimeout_s = 0\n", "worker.timeout_s", "greater than 0"),
        ("[worker]\ntimeout_s = inf\n", "worker.timeout_s", "finite"),
        ("[complete]\nquiet_s = -1\n", "complete.quiet_s", "0"),
        ("peers = 5\n", "peers", "[peers.NAME]"),
        ("[peers]\npacs = 5\n", "peers.pacs", "a table"),
        ('[peers.pacs]\nae_title = "A"\n', "peers.pacs.host", "required"),
        ('[peers.pacs]\nae_title = "A"\nhst = "h"\n', "peers.pacs.hst", '"host"'),
        (PACS + 'confirm = "fnd"\n', "peers.pacs.confirm", "'commitment' or 'none'"),
        (PACS.replace('"PACS"', "5"), "peers.pacs.ae_title", "text in quotes"),
        (PACS.replace('"PACS"', "[]"), "peers.pacs.ae_title", "empty"),
        (PACS.replace('"PACS"', '["PACS", ""]'), "peers.pacs.ae_title[1]", "AE title"),
        (PACS.replace('"127.0.0.1"', '""'), "peers.pacs.host", "machine alone"),
        (PACS.replace('"127.0.0.1"', '["a:1"]'), "peers.pacs.host[0]", "machine alone"),
        (PACS + "query = 104\n", "peers.pacs.query", "a table"),
        (PACS + "query = { prt = 104 }\n", "peers.pacs.query.prt", '"port"'),
        (PACS + "commitment = { port = 0 }\n", "peers.pacs.commitment.port", "1"),
        (PACS + 'tls_name = ".example"\n', "peers.pacs.tls_name", "certificate"),
        (PACS + 'tls_name = "a..b"\n', "peers.pacs.tls_name", "certificate"),
        (PACS + "max_associations = 0\n", "peers.pacs.max_associations", "1"),
        (PACS + 'ae_titles = ["A"]\n', "peers.pacs.ae_titles", '"ae_title"'),
        (PACS.replace("4242", "0"), "peers.pacs.port", "1"),
        (PACS.replace(".pacs", '."main pacs"').replace("4242", "0"), 'peers."main pacs".port', "1"),
        ('[routes]\nname = "x"\n', "routes", "[[routes]]"),
        ("routes = [5]\n", "routes[0]", "a table"),
        (PACS + MODEL + route(priority='"urgent"'), "routes[0].priority", "'stat'"),
        (PACS + MODEL + route(send_to="[]"), "routes[0].send_to", "empty"),
        (PACS + MODEL + route(send_to='"pacs"'), "routes[0].send_to", "a list, not text"),
        (PACS + MODEL + route(send_to=""), "routes[0].send_to", "required"),
        (PACS + MODEL + route(series="{}"), "routes[0].series", "empty"),
        (PACS + MODEL + route(name='""'), "routes[0].name", "empty"),
        ('[database]\nurl = "sqlite:///"\n', "database.url", "path of a file"),
        ('[database]\nurl = "sqlite://data/node.db"\n', "database.url", "path of a file"),
        ('[database]\nurl = "sqlite:///:memory:"\n', "database.url", "path of a file"),
        ('[database]\nurl = "sqlite:///a.db?mode=ro"\n', "database.url", "question mark"),
        ('[database]\nurl = "postgresql://u@h/n"\n', "database.url", "postgresql+psycopg://"),
        ('[database]\nurl = "mysql://u@h/n"\n', "database.url", "postgresql+psycopg://"),
        ('[database]\nurl = "postgresql+psycopg://u@h:port/n"\n', "database.url", "port"),
        ('[database]\npassword_file = "x"\n', "database.url", "no password"),
        ('[queue]\nbroker = "amqp://h"\n', "queue.broker", "redis://"),
        ('[queue]\nbroker = "redis:///0"\n', "queue.broker", "redis://"),
    ],
)
def test_a_fault_of_shape_is_told_by_its_key_path(
    write: Write, text: str, path: str, hint: str
) -> None:
    problems = found(write(text))
    assert set(problems) == {path}
    assert problems[path].level == "error"
    assert hint in problems[path].message
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", problems[path].code)


@pytest.mark.parametrize("title", ["A", "SIXTEEN CHARS OK", "a-b_c.d", " PADDED  ", "PACS["])
def test_an_ae_title_of_the_standard_is_taken_without_its_padding(write: Write, title: str) -> None:
    assert config.load(write(f'[node]\nae_title = "{title}"\n'), {}).node.ae_title == title.strip()


@pytest.mark.parametrize("title", ["", "   ", "SEVENTEEN CHARS !", "A\\\\B", "A\\tB", "MÜNCHEN"])
def test_an_ae_title_against_the_standard_is_refused(write: Write, title: str) -> None:
    assert "AE title" in found(write(f'[node]\nae_title = "{title}"\n'))["node.ae_title"].message


@pytest.mark.parametrize(
    ("series", "path", "hint"),
    [
        ('{ Modalty = "MR" }', "routes[0].series.Modalty", '"Modality"'),
        ('{ modality = "MR" }', "routes[0].series.modality", '"Modality"'),
        ('{ Instances = ">=16" }', "routes[0].series.Instances", '"instances"'),
        ('{ zzzzzz = "MR" }', "routes[0].series.zzzzzz", "PS3.6"),
        ('{ Modality = "re:(" }', "routes[0].series.Modality", "regular expression"),
        ("{ Modality = true }", "routes[0].series.Modality", "exists"),
        ("{ PixelData = 1 }", "routes[0].series.PixelData", "no clause can compare"),
        ("{ ReferencedStudySequence = 1 }", "routes[0].series.ReferencedStudySequence", "sequence"),
        ('{ MediaStorageSOPClassUID = "1" }', "routes[0].series.MediaStorageSOPClassUID", "data"),
    ],
)
def test_a_clause_that_no_series_could_be_asked_is_refused(
    write: Write, series: str, path: str, hint: str
) -> None:
    problems = found(write(PACS + MODEL + route(series=series)))
    assert set(problems) == {path}
    assert hint in problems[path].message


def test_the_transfer_syntax_may_stand_in_a_clause(write: Write) -> None:
    path = write(PACS + MODEL + route(series='{ TransferSyntaxUID = "1.2.840.10008.1.2.1" }'))
    assert found(path) == {}


@pytest.mark.parametrize(
    ("text", "place"),
    [("[node]\nae_title = \n", "line 2, column 12"), ("[node]\n[node]\n", "line 2")],
)
def test_a_fault_of_syntax_is_told_by_line_and_column(write: Write, text: str, place: str) -> None:
    with pytest.raises(ConfigurationError, match=place) as refusal:
        config.load(write(text), {})
    (problem,) = refusal.value.problems
    assert problem.code == "syntax"


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(b'[node]\nae_title = "M\xdcNCHEN"\n')
    with pytest.raises(ConfigurationError, match="UTF-8"):
        config.load(path, {})


def test_a_missing_file_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"node\.toml: No such file.*init"):
        config.load(tmp_path / "node.toml", {})


# ── Faults of sense ─────────────────────────────────────────────────────────────────────────────

PORTLESS = '[peers.ct1]\nae_title = "CT1"\nhost = "10.0.0.5"\n'
TWIN = PACS.replace(".pacs", ".twin")


@pytest.mark.parametrize(
    ("text", "path", "hint"),
    [
        (PACS + route(), "routes[0].model", "brain"),
        (PACS + MODEL + route(model='"brian"'), "routes[0].model", '"brain"'),
        (PACS + MODEL + route(send_to='["pcs"]'), "routes[0].send_to[0]", '"pacs"'),
        (
            PACS + PORTLESS + MODEL + route(send_to='["pacs", "ct1"]'),
            "routes[0].send_to[1]",
            "peers.ct1.port",
        ),
        (PACS + MODEL + route(send_to='["pacs", "pacs"]'), "routes[0].send_to[1]", "twice"),
        (PACS + MODEL + route(series=""), "routes[0]", "neither"),
        (PACS + MODEL + route(inputs='{ t1 = { Modality = "MR" } }'), "routes[0]", "both"),
        (PACS + MODEL + route() + route(), "routes[1].name", "routes[0]"),
        (PACS + TWIN, "peers.twin", '"pacs"'),
        (
            PACS
            + TWIN.replace('"PACS"', '["X", "PACS"]')
            .replace('"1', '["a", "1')
            .replace('.1"', '.1"]'),
            "peers.twin",
            '"pacs"',
        ),
        (PORTLESS + 'confirm = "commitment"\n', "peers.ct1.confirm", "peers.ct1.port"),
        (PORTLESS + 'query = { host = "h" }\n', "peers.ct1.query", "no port"),
        (PORTLESS + 'commitment = { host = "h" }\n', "peers.ct1.commitment", "no port"),
        (PACS + 'tls = true\ntls_name = ""\n', "peers.pacs.tls_name", "tls.ca"),
        ("[disk]\nfloor_gib = 2.0\n", "disk.floor_gib", "less than disk.min_free_gib (2.0)"),
        ("[disk]\nmin_free_gib = 0\n", "disk.min_free_gib", "disk.floor_gib (0.5)"),
        ("[disk]\nmin_free_gib = 0.5\n", "disk.min_free_gib", "disk.floor_gib (0.5)"),
        (TLS.replace("2762", "11112"), "tls.port", "listen.port"),
        ("[listen]\nport = 2762\n" + TLS, "tls.port", "listen.port"),
        ("[tls]\nport = 2762\n", "tls.port", "tls.certificate and tls.key and tls.ca"),
        (TLS.replace('ca = "ca.crt"\n', ""), "tls.port", "Needs tls.ca"),
        ('[tls]\ncertificate = "node.crt"\n', "tls.certificate", "tls.key"),
        ('[tls]\nkey = "node.key"\n', "tls.key", "tls.certificate"),
        ('[tls]\nkey_password_file = "word"\n', "tls.key_password_file", "tls.key"),
        (
            PACS + PACS.replace(".pacs", "." + "x" * 65).replace("PACS", "X"),
            f"peers.{'x' * 65}",
            "64",
        ),
    ],
)
def test_a_fault_of_sense_is_refused_by_its_key_path(
    write: Write, text: str, path: str, hint: str
) -> None:
    problems = found(write(text))
    assert set(problems) == {path}
    assert hint in problems[path].message
    with pytest.raises(ConfigurationError):
        config.load(write(text), {})


@pytest.mark.parametrize(
    "text",
    [
        TLS,
        TLS.replace("2762", "0") + "[listen]\nport = 0\n",
        TLS.replace("ca =", "client_certificates = 'none' #"),
        PACS + "tls = true\n",  # the system's authorities vouch for it
        PACS + 'tls = true\ntls_name = ""\n' + TLS,
        PACS + 'confirm = "commitment"\n',
        PORTLESS + "query = { port = 104 }\ncommitment = { port = 104 }\n",
        PORTLESS + 'confirm = "commitment"\ncommitment = { port = 104 }\n',
        PACS.replace('"PACS"', '["PACS", "PACS"]'),
        "[listen]\nprocesses = 4\n",
        "[disk]\nmin_free_gib = 0\nfloor_gib = 0.0\n",  # the disk itself says when it is full
        "[disk]\nkeep_delivered_days = 1\n" + PACS,
        PACS + 'confirm = "none"\n',
    ],
)
def test_what_goes_together_is_no_problem(write: Write, text: str) -> None:
    assert found(write(text)) == {}


@pytest.mark.parametrize(
    "commitment",
    [
        '{ ae_title = "PACS", host = "127.0.0.1" }',
        '{ ae_title = "PACS" }',
        '{ host = "127.0.0.1" }',
    ],
)
def test_no_two_peers_have_their_commitments_answered_by_the_same_one(
    write: Write, commitment: str
) -> None:
    title = "OTHER" if "ae_title" in commitment else "PACS"
    host = "10.0.0.5" if "host" in commitment else "127.0.0.1"
    other = f'[peers.other]\nae_title = ["{title}", "B"]\nhost = "{host}"\nport = 104\n'
    problems = found(write(PACS + other + f"commitment = {commitment}\n"))
    assert {path: one.code for path, one in problems.items()} == {"peers.other": "duplicate-peer"}


def test_peers_may_have_one_archive_that_is_asked_for_their_objects(write: Write) -> None:
    text = TWIN.replace('"PACS"', '"OTHER"') + 'query = { ae_title = "PACS" }\n'
    assert found(write(PACS + text)) == {}


def test_peers_may_share_an_ae_title_or_a_host_alone(write: Write) -> None:
    other_host = TWIN.replace("127.0.0.1", "10.0.0.5")
    other_title = TWIN.replace("twin", "third").replace('"PACS"', '"OTHER"')
    assert found(write(PACS + other_host + other_title)) == {}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('[database]\nurl = "postgresql+psycopg://u:hidden@h/n"\n', "database.url"),
        ('[queue]\nbroker = "redis://:hidden@h"\n', "queue.broker"),
    ],
)
def test_a_password_in_the_file_is_a_warning_that_does_not_repeat_it(
    write: Write, text: str, path: str
) -> None:
    problem = found(write(text))[path]
    assert problem.level == "warning"
    assert "hidden" not in problem.message
    config.load(write(text), {})


def test_results_that_are_removed_and_never_asked_about_are_a_warning(write: Write) -> None:
    text = "[disk]\nkeep_delivered_days = 1\n" + PACS + 'confirm = "none"\n'
    (problem,) = found(write(text)).values()
    assert (problem.level, problem.code) == ("warning", "removed-unconfirmed")
    assert problem.path == "peers.pacs.confirm"
    config.load(write(text), {})


def test_a_password_in_a_faulty_url_is_not_repeated(write: Write) -> None:
    path = write(
        '[database]\nurl = "mysql://u:hidden@h/n"\n[queue]\nbroker = "amqp://u:hidden@h"\n'
    )
    with pytest.raises(ConfigurationError) as refusal:
        config.load(path, {})
    assert "hidden" not in str(refusal.value)
    assert "hidden" not in repr(config.read(path, {}))


def test_faults_in_many_places_are_all_told_in_one_pass(write: Write) -> None:
    path = write(
        "colour = 1\n[listen]\nport = 70000\n"
        + PACS.replace("PACS", "A TITLE TOO LONG FOR DICOM")
        + PORTLESS
        + MODEL
        + route(model='"brian"', series='{ Modalty = "MR" }', send_to='["ct1", "pcs"]')
        + route(series="", priority='"urgent"')
    )
    expected = {
        "colour",
        "listen.port",
        "peers.pacs.ae_title",
        "routes[0].model",
        "routes[0].series.Modalty",
        "routes[0].send_to[0]",
        "routes[0].send_to[1]",
        "routes[1].priority",
        "routes[1]",
        "routes[1].name",
    }
    assert set(found(path)) == expected
    with pytest.raises(Misconfigured) as refusal:
        config.load(path, {})
    assert all(f"{key}: " in str(refusal.value) for key in expected)


def test_what_is_sound_is_given_beside_the_problems(write: Write) -> None:
    path = write("[listen]\nport = 70000\n" + PACS + PORTLESS.replace("host", "hst"))
    reading = config.read(path, {})
    assert reading.configuration is None
    assert reading.parts.listen is None
    assert reading.parts.node is not None
    assert set(reading.parts.peers) == {"pacs"}


# ── What stands beside the code ─────────────────────────────────────────────────────────────────


def test_the_schema_in_the_repository_is_the_one_of_the_code() -> None:
    kept = json.loads((DEPLOY / "node.schema.json").read_text(encoding="utf-8"))
    assert kept == config.json_schema(), "write it anew: dicomnode schema > deploy/node.schema.json"


def test_every_key_of_the_schema_says_what_it_is() -> None:
    definitions = config.json_schema()["$defs"]
    silent = [
        f"{name}.{key}"
        for name, definition in definitions.items()
        for key, about in definition.get("properties", {}).items()
        if not about.get("description")
    ]
    assert silent == []


def test_the_example_is_sound() -> None:
    assert config.read(DEPLOY / "node.example.toml", {}).problems == ()


def test_the_example_shows_every_key_and_says_something_of_each() -> None:
    shown = _keys_by_section((DEPLOY / "node.example.toml").read_text(encoding="utf-8"))
    tables: dict[str, type[BaseModel]] = {**SECTIONS, **COLLECTIONS}
    assert set(tables) == set(Configuration.model_fields)
    for section, table in tables.items():
        assert set(keys(table)) <= shown[section], section


def test_the_example_shows_what_may_be_chosen_of_results_with_the_choices_of_standard() -> None:
    text = (DEPLOY / "node.example.toml").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^# results\.(\w+) = (\S+) +#", text, re.MULTILINE))
    assert {key: json.loads(value) for key, value in shown.items()} == NAMED[
        "standard"
    ].model_dump()
    assert set(shown) == set(config.Results.model_fields)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_a_named_profile_is_what_a_peer_gets_unless_it_chooses(write: Write, name: str) -> None:
    peer = f'[peers.p]\nae_title = "P"\nhost = "h"\nport = 104\nprofile = "{name}"\n'
    assert config.load(write(peer), {}).peers["p"].gets == NAMED[name]
    chosen = config.load(write(peer + "results.key_images = true\n"), {}).peers["p"].gets
    assert chosen == NAMED[name].with_choices({"key_images": True})


def test_a_destination_of_which_nothing_would_hear_is_an_error(write: Write) -> None:
    peer = '[peers.p]\nae_title = "P"\nhost = "h"\nprofile = "captures-only"\n'
    (problem,) = config.read(write(peer + "results.capture = false\n"), {}).problems
    assert (problem.path, problem.code) == ("peers.p.results", "nothing-sent")
    assert not config.read(write(peer + "results.report = true\n"), {}).problems


def _keys_by_section(text: str) -> dict[str, set[str]]:
    """The keys with a comment beside or above them; a key may itself be commented out."""
    shown: dict[str, set[str]] = {}
    section = above = ""
    for line in text.splitlines():
        if header := re.match(r"\[+(\w+)", line):
            section = header[1]
        key = re.match(r"(?:# )?(\w+)[\w.]* = .+", line)
        if key and ("#" in line[1:] or above.startswith("#")):
            shown.setdefault(section, set()).add(key[1])
        above = line
    return shown


def test_the_values_in_the_example_are_those_of_keys_that_are_left_out(write: Write) -> None:
    example = config.load(DEPLOY / "node.example.toml", {})
    assert _sections(example, DEPLOY) == _sections(config.load(write(""), {}), write("").parent)


def _sections(configuration: Configuration, folder: Path) -> dict[str, Any]:
    dumped = configuration.model_dump(mode="json", include=set(SECTIONS))
    text = json.dumps(dumped).replace(str(folder), "HERE")
    sections: dict[str, Any] = json.loads(text)
    return sections


# ── The file to start from ──────────────────────────────────────────────────────────────────────


def test_the_starter_is_sound_and_points_at_the_bundles(tmp_path: Path) -> None:
    path = config.write_starter(tmp_path / "node", models_dir=tmp_path / 'with "quotes"')
    assert path == tmp_path / "node" / "node.toml"
    assert config.read(path, {}).problems == ()
    bundle = config.load(path, {}).models["hippocampus"].bundle
    assert bundle == tmp_path / 'with "quotes"' / "hippocampus_mr_segmentation"


def test_the_starter_names_bundles_beside_it_by_a_relative_path(tmp_path: Path) -> None:
    path = config.write_starter(tmp_path, models_dir=tmp_path / "models")
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    bundle = config.load(path, {}).models["hippocampus"].bundle
    assert bundle == tmp_path / "models" / "hippocampus_mr_segmentation"


def test_the_starter_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("mine")
    with pytest.raises(Misconfigured) as refusal:
        config.write_starter(tmp_path, models_dir=tmp_path)
    assert refusal.value.reason == "already-there"
    assert (tmp_path / "node.toml").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured) as refusal:
        config.write_starter(tmp_path / "file" / "node", models_dir=tmp_path)
    assert refusal.value.reason == "not-writable"
