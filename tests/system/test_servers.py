"""The test servers themselves: each starts, does what it is for, and ends."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import sqlalchemy
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from servers import HOST, Orthanc, RedisServer

SAMPLE = "MR_small.dcm"


def test_redis_forgets_everything_when_it_is_killed(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("job", "1")
    redis_server.kill()
    with redis.Redis.from_url(redis_server.url) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    redis_server.start()
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.get("job") is None


@pytest.mark.server("redis-server")
def test_a_persistent_redis_remembers_when_it_is_killed(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, persistent=True)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.set("job", "1")
    server.kill()
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("job") == b"1"
    server.stop()


def test_orthanc_takes_an_instance_and_finds_it_again(orthanc: Orthanc) -> None:
    path = get_testdata_file(SAMPLE)
    assert isinstance(path, str)
    ae = AE()
    ae.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    association = ae.associate(HOST, orthanc.dicom_port, ae_title=orthanc.ae_title)
    assert association.is_established
    assert association.send_c_store(path).Status == 0x0000
    association.release()
    (sop_instance_uid,) = orthanc.instances()
    (found,) = orthanc.qido(f"instances?SOPInstanceUID={sop_instance_uid}")
    assert found["00080018"]["Value"] == [sop_instance_uid]


def test_orthanc_learns_where_a_modality_is(orthanc: Orthanc) -> None:
    orthanc.add_modality("node", "DICOMNODE", HOST, 11112)
    known = orthanc.request("GET", "/modalities/node/configuration")
    assert (known["AET"], known["Host"], known["Port"]) == ("DICOMNODE", HOST, 11112)


def test_orthanc_keeps_what_was_uploaded_when_it_is_stopped(orthanc: Orthanc) -> None:
    orthanc.upload(Path(str(get_testdata_file(SAMPLE))))
    before = orthanc.instances()
    orthanc.stop()
    orthanc.start()
    assert orthanc.instances() == before


@pytest.mark.parametrize("turn", ["first", "second"])
def test_every_test_gets_an_empty_database_of_its_own(postgres_url: str, turn: str) -> None:
    engine = sqlalchemy.create_engine(postgres_url)
    with engine.begin() as connection:
        assert sqlalchemy.inspect(connection).get_table_names() == []
        connection.execute(sqlalchemy.text(f"CREATE TABLE {turn} (id integer)"))
    engine.dispose()


def test_the_test_run_reaches_no_other_machine() -> None:
    a_documentation_address = ("192.0.2.1", 104)  # RFC 5737: routed nowhere
    with socket.socket() as outward, pytest.raises(RuntimeError, match="wanted to connect"):
        outward.connect(a_documentation_address)


@pytest.mark.parametrize(
    ("required", "exit_code", "outcome"), [("0", 0, "1 skipped"), ("1", 1, "1 error")]
)
def test_a_missing_server_is_named_and_skips_or_where_it_is_required_fails(
    tmp_path: Path, required: str, exit_code: int, outcome: str
) -> None:
    """Where PATH leads to an empty folder, no server is found."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", "redis_forgets"],
        cwd=Path(__file__).parents[2],
        env={"PATH": str(tmp_path), "DICOMNODE_TESTS_REQUIRE_SERVERS": required},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "missing Debian package redis-server; tests that need it: 1" in run.stdout
    assert outcome in run.stdout
    assert "needs the Debian package redis-server" in run.stdout
    assert run.returncode == exit_code
