"""Secure associations (PS3.15 B.12), with DCMTK on the other side: we call, and are called."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Issued, TlsTable
from pydicom.filereader import dcmread
from servers import Server, free_port
from wire import raw
from wire.raw import Context, Speaker
from wire.receiving import HOST, KIND, NODE, Receiver, Start, dataset_bytes, instance, write

from dicomnode import status
from dicomnode.archive.arrival import End, Opened, TurnedAway
from dicomnode.config import Address
from dicomnode.errors import Misconfigured, RetryLater
from dicomnode.network.calling import sender
from dicomnode.network.calling.request import Destination, Patience, requested
from dicomnode.network.tls import Certificates, Security

pytestmark = pytest.mark.server("dcmtk")

WITHIN_S = 30


@pytest.fixture
def ours(authority: Authority) -> Issued:
    return authority.issue("node")


@pytest.fixture
def table(authority: Authority, ours: Issued) -> TlsTable:
    return TlsTable(certificate=ours.certificate, key=ours.key, ca=authority.certificate)


@pytest.fixture
def certificates(table: TlsTable) -> Certificates:
    return Certificates(table)


# ── We call ─────────────────────────────────────────────────────────────────────────────────────

StartStorescp = Callable[..., Destination]


@pytest.fixture
def storescp(tmp_path: Path, authority: Authority) -> Iterator[StartStorescp]:
    """Starts DCMTK's receiver; it keeps what it gets in the folder `received`."""
    servers: list[Server] = []

    def _start(shows: Issued | None, *options: str) -> Destination:
        folder, port = tmp_path / "received", free_port()
        folder.mkdir()
        secure = []
        if shows is not None:
            secure = ["+tls", shows.key, shows.certificate, "+cf", authority.certificate]
        command = ["/usr/bin/storescp", "-d", *options, *secure, "-od", folder, port]
        server = Server(command=[str(word) for word in command], directory=tmp_path)
        server.start(lambda: socket.create_connection((HOST, port)).close() is None)
        servers.append(server)
        return Destination(ae_title="PACS", host=HOST, port=port)

    yield _start
    for server in servers:
        server.stop()


def secured(to: Destination, certificates: Certificates, *, name: str = HOST) -> Destination:
    return replace(to, security=Security(certificates=certificates, name=name))


def send(path: Path, to: Destination) -> int:
    (sent,) = sender.send([path], to=to, calling_ae_title=NODE)
    return sent.status


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "sent.dcm", instance(pixels=512))


def test_objects_arrive_at_a_peer_that_asks_for_our_certificate(
    storescp: StartStorescp,
    authority: Authority,
    certificates: Certificates,
    file: Path,
    tmp_path: Path,
) -> None:
    to = secured(storescp(authority.issue("pacs"), "--require-peer-cert"), certificates)
    sender.echo(to, calling_ae_title=NODE)
    assert send(file, to) == status.SUCCESS
    (received,) = (tmp_path / "received").iterdir()
    assert dcmread(received).PixelData == dcmread(file).PixelData


def test_a_peer_whose_certificate_somebody_else_signed_gets_nothing(
    storescp: StartStorescp, certificates: Certificates, file: Path, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger").issue("pacs")
    to = secured(storescp(stranger, "--ignore-peer-cert"), certificates)
    with pytest.raises(RetryLater, match=r"tls-failed: .*not trusted.*tls\.ca"):
        send(file, to)
    assert list((tmp_path / "received").iterdir()) == []


def test_the_name_of_a_peer_is_that_of_its_certificate(
    storescp: StartStorescp, authority: Authority, certificates: Certificates
) -> None:
    to = storescp(authority.issue("PACS", host="192.0.2.1"), "--ignore-peer-cert")
    with pytest.raises(RetryLater, match=r"tls-failed: .*mismatch.*tls_name"):
        sender.echo(secured(to, certificates), calling_ae_title=NODE)
    sender.echo(secured(to, certificates, name="192.0.2.1"), calling_ae_title=NODE)
    sender.echo(secured(to, certificates, name=""), calling_ae_title=NODE)


@pytest.mark.parametrize("name", [".example", "a..b", "x" * 64])
def test_a_name_that_no_certificate_has_is_a_misconfiguration(
    certificates: Certificates, free_port: int, name: str
) -> None:
    to = Destination(ae_title="PACS", host=HOST, port=free_port)
    with pytest.raises(Misconfigured, match="bad-tls-name"):
        sender.echo(secured(to, certificates, name=name), calling_ae_title=NODE)


def test_a_peer_that_does_not_get_our_certificate_says_so(
    storescp: StartStorescp, authority: Authority
) -> None:
    without = Certificates(TlsTable(ca=authority.certificate))
    to = secured(storescp(authority.issue("pacs"), "--require-peer-cert"), without)
    with pytest.raises(RetryLater, match=r"certificate"):
        sender.echo(to, calling_ae_title=NODE)


def test_a_peer_without_tls_is_named(storescp: StartStorescp, certificates: Certificates) -> None:
    with pytest.raises(RetryLater, match=r"tls-failed: .*secure port"):
        sender.echo(secured(storescp(None), certificates), calling_ae_title=NODE)


def test_a_secure_port_that_is_called_plainly_is_no_dicom_node(
    storescp: StartStorescp, authority: Authority
) -> None:
    with pytest.raises(RetryLater, match="association-aborted"):
        sender.echo(storescp(authority.issue("pacs")), calling_ae_title=NODE)


def test_nobody_at_a_secure_port_is_as_nobody_elsewhere(
    certificates: Certificates, free_port: int
) -> None:
    to = Destination(ae_title="PACS", host=HOST, port=free_port)
    with pytest.raises(RetryLater, match="peer-unreachable"):
        sender.echo(secured(to, certificates), calling_ae_title=NODE)


def test_a_peer_that_takes_the_connection_and_says_nothing_is_given_up(
    certificates: Certificates,
) -> None:
    contexts = [sender.build_context("1.2.840.10008.1.1")]
    with socket.create_server((HOST, 0)) as silent:
        to = Destination(ae_title="PACS", host=HOST, port=silent.getsockname()[1])
        with (
            pytest.raises(RetryLater, match="tls-failed"),
            requested(
                secured(to, certificates),
                calling_ae_title=NODE,
                contexts=contexts,
                patience=Patience(connect_s=0.2),
            ),
        ):
            pass


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_peer_of_an_older_version_is_named(certificates: Certificates, ours: Issued) -> None:
    outdated = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    outdated.set_ciphers("ALL:@SECLEVEL=0")
    outdated.minimum_version = outdated.maximum_version = ssl.TLSVersion.TLSv1_1
    outdated.load_cert_chain(ours.certificate, ours.key)
    with socket.create_server((HOST, 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection, pytest.raises(ssl.SSLError):
                outdated.wrap_socket(connection, server_side=True)

        answering = threading.Thread(target=answer)
        answering.start()
        to = Destination(ae_title="PACS", host=HOST, port=listening.getsockname()[1])
        with pytest.raises(RetryLater, match=r"tls-failed: .*in common"):
            sender.echo(secured(to, certificates), calling_ae_title=NODE)
        answering.join(WITHIN_S)


def test_an_address_of_the_configuration_is_called_as_it_says(certificates: Certificates) -> None:
    address = Address(ae_title="PACS", host=HOST, port=104, tls=True, tls_name="pacs.example")
    plain = Destination(ae_title="PACS", host=HOST, port=104)
    assert Destination.at(replace(address, tls=False), certificates=certificates) == plain
    assert Destination.at(address, certificates=certificates) == secured(
        plain, certificates, name="pacs.example"
    )
    with pytest.raises(Misconfigured, match="no-certificates"):
        Destination.at(address, certificates=None)


# ── We are called ───────────────────────────────────────────────────────────────────────────────


def storescu(
    node: Receiver, path: Path, *options: str | Path, aet: str = "CT1"
) -> subprocess.CompletedProcess[str]:
    command = ["/usr/bin/storescu", "-d", *options, "-aet", aet, "-aec", NODE, "-R"]
    return subprocess.run(
        [str(word) for word in (*command, HOST, node.secure_port, path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )


def shown(issued: Issued, authority: Authority) -> tuple[str | Path, ...]:
    return ("+tls", issued.key, issued.certificate, "+cf", authority.certificate)


def test_objects_arrive_from_a_peer_that_shows_its_certificate(
    start: Start, authority: Authority, certificates: Certificates, file: Path
) -> None:
    node = start(certificates=certificates)
    done = storescu(node, file, *shown(authority.issue("ct1"), authority))
    assert done.returncode == 0, done.stderr
    assert (node.ended().end, node.ended().stored) == (End.RELEASED, 1)
    assert node.opened.peer == "ct1"
    assert node.opened.address == HOST
    assert dataset_bytes(node.data_dir / node.stored[0]) == dataset_bytes(file)


def test_who_shows_no_certificate_gets_no_association_where_one_is_required(
    start: Start, authority: Authority, table: TlsTable, file: Path, tmp_path: Path
) -> None:
    node = start(certificates=Certificates(table))
    anonymous = ("+tla", "+cf", authority.certificate)
    assert storescu(node, file, *anonymous).returncode != 0
    node.wait_for(TurnedAway)
    assert node.turned_away.reason == "tls-handshake-failed"
    assert node.of(Opened) == []
    lenient = start(
        data_dir=tmp_path / "lenient",
        certificates=Certificates(replace(table, client_certificates="none")),
    )
    done = storescu(lenient, file, *anonymous)
    assert done.returncode == 0, done.stderr
    assert lenient.ended().stored == 1


def test_who_is_vouched_for_by_a_stranger_gets_no_association(
    start: Start, authority: Authority, certificates: Certificates, file: Path, tmp_path: Path
) -> None:
    node = start(certificates=certificates)
    stranger = Authority(tmp_path / "stranger").issue("ct1")
    assert storescu(node, file, *shown(stranger, authority)).returncode != 0
    node.wait_for(TurnedAway)
    assert node.of(Opened) == []


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_an_older_version_than_1_2_gets_no_association(
    start: Start, certificates: Certificates, ours: Issued
) -> None:
    node = start(certificates=certificates)
    outdated = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outdated.check_hostname = False
    outdated.verify_mode = ssl.CERT_NONE
    outdated.set_ciphers("ALL:@SECLEVEL=0")
    outdated.minimum_version = outdated.maximum_version = ssl.TLSVersion.TLSv1_1
    outdated.load_cert_chain(ours.certificate, ours.key)
    with (
        socket.create_connection((HOST, node.secure_port)) as connection,
        pytest.raises(ssl.SSLError),
    ):
        outdated.wrap_socket(connection)
    node.wait_for(TurnedAway)
    assert node.turned_away.reason == "tls-handshake-failed"


def test_a_certificate_does_not_stand_for_an_ae_title(
    start: Start, authority: Authority, certificates: Certificates, file: Path
) -> None:
    node = start(certificates=certificates)
    done = storescu(node, file, *shown(authority.issue("ct1"), authority), aet="STRANGER")
    assert done.returncode != 0
    node.wait_for(TurnedAway)
    assert node.turned_away.reason == "unknown-peer"


def common_name(node: Receiver, certificates: Certificates) -> str:
    """Whom the node says it is."""
    with (
        socket.create_connection((HOST, node.secure_port)) as connection,
        certificates.client().wrap_socket(connection, server_hostname=HOST) as secure,
    ):
        certificate: Any = secure.getpeercert()
        return str(dict(pair for (pair,) in certificate["subject"])["commonName"])


def to_node(node: Receiver, certificates: Certificates) -> Destination:
    assert node.secure_port is not None
    return secured(Destination(ae_title=NODE, host=HOST, port=node.secure_port), certificates)


def test_a_certificate_that_is_replaced_is_shown_from_the_next_association_on(
    start: Start, authority: Authority, certificates: Certificates, ours: Issued
) -> None:
    node = start(certificates=certificates)
    contexts = [sender.build_context("1.2.840.10008.1.1")]
    calling: Any = {"calling_ae_title": "CT1", "contexts": contexts}
    assert common_name(node, certificates) == "node"
    with requested(to_node(node, certificates), **calling) as begun:
        ours.replace(authority.issue("renewed"))
        assert common_name(node, certificates) == "renewed"
        assert begun.send_c_echo().Status == status.SUCCESS
    with requested(to_node(node, certificates), **calling) as next_one:
        assert next_one.send_c_echo().Status == status.SUCCESS


def test_a_new_certificate_that_does_not_load_leaves_the_old_one_in_use(
    start: Start, certificates: Certificates, ours: Issued, table: TlsTable
) -> None:
    caller = Certificates(table)
    caller.client()
    node = start(certificates=certificates)
    ours.certificate.write_text("nothing of the kind")
    assert common_name(node, caller) == "node"


def test_who_does_not_get_on_with_the_handshake_holds_nobody_up(
    start: Start, authority: Authority, certificates: Certificates, file: Path
) -> None:
    node = start(certificates=certificates)
    with contextlib.ExitStack() as stalled:
        for said in (b"", b"\x16\x03\x01", b"", b"\x16"):
            connection = socket.create_connection((HOST, node.secure_port))
            stalled.enter_context(connection).sendall(said)
        done = storescu(node, file, *shown(authority.issue("ct1"), authority))
        assert done.returncode == 0, done.stderr
    assert node.ended().stored == 1


def test_who_looks_whether_the_secure_port_is_open_is_no_attacker(
    start: Start, authority: Authority, certificates: Certificates, file: Path
) -> None:
    """A balancer does, every few seconds, and some hang up with a reset."""
    node = start(certificates=certificates)
    for linger in (struct.pack("ii", 0, 0), struct.pack("ii", 1, 0)):
        with socket.create_connection((HOST, node.secure_port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    done = storescu(node, file, *shown(authority.issue("ct1"), authority))
    assert done.returncode == 0, done.stderr
    assert node.ended().stored == 1
    assert node.of(TurnedAway) == []


def test_who_speaks_no_tls_on_the_secure_port_gets_no_association(
    start: Start, authority: Authority, certificates: Certificates, file: Path
) -> None:
    node = start(certificates=certificates)
    assert storescu(node, file).returncode != 0
    node.wait_for(TurnedAway)
    assert node.turned_away.reason == "tls-handshake-failed"
    assert node.of(Opened) == []


def test_what_we_send_ourselves_arrives_byte_for_byte(
    start: Start, certificates: Certificates, tmp_path: Path
) -> None:
    node = start(certificates=certificates)
    paths = [
        write(tmp_path / f"{number}.dcm", instance(number, pixels=pixels))
        for number, pixels in enumerate((64, 128, 64, 512, 1024, 64))
    ]
    sent = sender.send(paths, to=to_node(node, certificates), calling_ae_title="CT1")
    assert [one.status for one in sent] == [status.SUCCESS] * len(paths)
    assert node.ended().stored == len(paths)
    for path, kept in zip(paths, node.stored, strict=True):
        assert dataset_bytes(node.data_dir / kept) == dataset_bytes(path)


def test_the_command_line_sends_with_tls(
    start: Start, authority: Authority, certificates: Certificates, file: Path
) -> None:
    node = start(certificates=certificates)
    ct1 = authority.issue("ct1")
    command = [
        *(sys.executable, "-m", "dicomnode", "send", file, "--calling", "CT1"),
        *("--to", f"{NODE}@{HOST}:{node.secure_port}", "--tls-ca", authority.certificate),
    ]
    own = ["--tls-certificate", ct1.certificate, "--tls-key", ct1.key]
    done = subprocess.run([*command, *own], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 files stored" in done.stdout
    done = subprocess.run(
        [*command, *own, "--tls-name", "pacs.example"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "tls-failed" in done.stderr


def test_the_command_line_asks_whom_to_trust(file: Path) -> None:
    command = [sys.executable, "-m", "dicomnode", "send", file, "--to", "A@127.0.0.1:104"]
    done = subprocess.run(
        [*command, "--tls-name", "A"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--tls-ca" in done.stderr


CT = Context(id=1, abstract_syntax=KIND[0], transfer_syntaxes=(KIND[1],))


@contextlib.contextmanager
def speaking(node: Receiver, certificates: Certificates) -> Iterator[Speaker]:
    """A sender that speaks PDUs itself, over TLS."""
    plain = socket.create_connection((HOST, node.secure_port), timeout=WITHIN_S)
    speaker = Speaker.__new__(Speaker)
    speaker.connection = certificates.client(any_name=True).wrap_socket(plain)
    with speaker:
        speaker.send(raw.associate_rq([CT], calling="CT1", called=NODE))
        kind, body = speaker.receive()
        assert kind == raw.ASSOCIATE_AC
        speaker.granted, speaker.longest = raw.accepted(body)
        yield speaker


@pytest.mark.parametrize("reactor", ["streaming"])
def test_who_is_silent_over_tls_is_lost_too(start: Start, certificates: Certificates) -> None:
    node = start(certificates=certificates, idle_s=0.3)
    with speaking(node, certificates) as speaker:
        assert node.ended().end is End.LOST
        assert speaker.receive()[0] in {raw.ABORT, 0}


@pytest.mark.parametrize("reactor", ["streaming"])
@pytest.mark.parametrize("seed", range(6))
def test_stopping_in_the_middle_of_an_instance_over_tls_keeps_nothing_of_it(
    start: Start, certificates: Certificates, seed: int
) -> None:
    node = start(certificates=certificates)
    rng = random.Random(seed)
    sent = instance(pixels=700)
    content = dataset_bytes(write(node.data_dir / "sent.dcm", sent))
    with speaking(node, certificates) as speaker:
        request = raw.c_store_rq(KIND[0], sent.SOPInstanceUID)
        *said, last = speaker.message(1, request, content, longest=4096)
        # Its last PDU says how long it is, and then comes but in part.
        speaker.send(b"".join(said) + last[: rng.randrange(7, len(last))])
        node.acceptor.stop(grace_s=0)
    assert node.ended().end is End.ABORTED
    assert node.on_disk == node.leftovers == []


@pytest.mark.parametrize("reactor", ["streaming"])
def test_an_instance_of_many_pdus_arrives_over_tls(
    start: Start, certificates: Certificates
) -> None:
    node = start(certificates=certificates)
    sent = instance(pixels=700)
    content = dataset_bytes(write(node.data_dir / "sent.dcm", sent))
    with speaking(node, certificates) as speaker:
        answer = speaker.store(CT, sent.SOPInstanceUID, content, rng=random.Random(1))
        assert raw.number(answer, raw.STATUS) == status.SUCCESS
        assert speaker.release()
    assert dataset_bytes(node.data_dir / node.stored[0]) == content
