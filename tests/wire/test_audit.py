"""Audit messages on the wire: to a collector that is there, away, slow, or not to be trusted."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import audit_schema
import collectors
import pytest
import servers
from certificates import Authority, TlsTable
from collectors import collecting, until

from dicomnode.archive.auditing import outbox, told
from dicomnode.archive.auditing.outbox import State
from dicomnode.archive.database import Database
from dicomnode.auditing import codes, events, message
from dicomnode.auditing.message import Source
from dicomnode.auditing.recorder import Recorder
from dicomnode.errors import NodeError, RetryLater
from dicomnode.network.auditing import reporter as reporters
from dicomnode.network.auditing.collector import Collector
from dicomnode.network.auditing.reporter import AuditReporter, Keeping
from dicomnode.network.tls import Certificates, Security

RECORDER = Recorder(source=Source(id="NODE"), ae_title="NODE", host="ai1")
FOR_LONG = Keeping(longest_s=1e9, most=1_000_000)


@dataclass
class Desk:
    """An outbox, and reporters that empty it one after the other, as lives of a node do."""

    database: Database
    reporters: list[AuditReporter] = field(default_factory=list)
    told: int = 0

    def tell(self, count: int = 1) -> None:
        with self.database.write() as tx:
            for _ in range(count):
                self.told += 1
                about = events.resource(f"n:{self.told}", said="x")
                made = events.alert(
                    RECORDER.process(is_requestor=True),
                    what=codes.SECURITY_ROLES_CHANGED, about=about, at=time.time(),
                )  # fmt: skip
                outbox.put(tx, RECORDER, made)

    def begin(self, collector: Collector, keeping: Keeping = FOR_LONG) -> AuditReporter:
        made = AuditReporter(
            self.database, collector, keeping=keeping, clock=time.time, settle_s=0.05
        )
        made.start()
        self.reporters.append(made)
        return made

    @property
    def state(self) -> State:
        with self.database.read() as tx:
            return outbox.state(tx)

    def close(self) -> None:
        for one in self.reporters:
            one.stop()
        self.database.close()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(reporters, "_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(reporters, "_LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr(reporters, "_LOOK_S", 0.02)
    monkeypatch.setattr(reporters, "_TICK_S", 0.01)
    made = Desk(Database(f"sqlite:///{tmp_path}/node.db", recorder=RECORDER))
    made.database.migrate()
    yield made
    made.close()


def numbers(bodies: list[str]) -> list[int]:
    """Which messages of a `Desk` these are."""
    found = [one.partition('ParticipantObjectID="n:')[2].partition('"')[0] for one in bodies]
    return [int(one) for one in found if one]


def secure(port: int, table: TlsTable, *, name: str = "127.0.0.1") -> Collector:
    security = Security(certificates=Certificates(table), name=name)
    return Collector(host="127.0.0.1", port=port, transport="tls", security=security)


def plain(port: int) -> Collector:
    return Collector(host="127.0.0.1", port=port, transport="tcp")


def test_messages_come_in_order_over_tls_with_a_certificate_on_each_side(
    desk: Desk, authority: Authority
) -> None:
    ours, theirs = authority.issue("node"), authority.issue("collector")
    table = TlsTable(certificate=ours.certificate, key=ours.key, ca=authority.certificate)
    with collecting(theirs, client_ca=str(authority.certificate)) as there:
        desk.tell(250)
        reporter = desk.begin(secure(there.port, table))
        until(lambda: desk.state.waiting == 0)
        reporter.stop()
        assert numbers(there.bodies) == list(range(1, 251))
    assert desk.state == State(sent=250, sent_at=desk.state.sent_at)
    fields = collectors.opened(there.framed[0])
    assert (fields["host"], fields["app"]) == ("ai1", "dicomnode")


def test_nothing_is_lost_and_the_order_kept_while_the_collector_is_away(desk: Desk) -> None:
    with collecting() as there:
        desk.begin(plain(there.port))
        desk.tell(20)
        until(lambda: desk.state.sent == 20)
        there.stop()
        desk.tell(20)
        until(lambda: desk.state.failed > 1)
        failing = desk.state
        assert (failing.waiting, failing.failing_since is not None) == (20, True)
        assert failing.reason in ("collector-unreachable", "collector-broke-off")
        there.start()
        until(lambda: desk.state.waiting == 0)
        assert numbers(there.bodies) == list(range(1, 41))
    assert desk.state.failing_since is None
    assert desk.state.detail == ""


def test_another_life_of_the_node_goes_on_where_the_last_one_ended(desk: Desk) -> None:
    with collecting() as there:
        there.stop()
        first = desk.begin(plain(there.port))
        desk.tell(30)
        until(lambda: desk.state.failed > 0)
        first.stop()
        desk.tell(30)
        there.start()
        desk.begin(plain(there.port))
        until(lambda: desk.state.waiting == 0)
        assert numbers(there.bodies) == list(range(1, 61))


def test_what_was_sent_on_a_connection_that_broke_off_is_sent_again(desk: Desk) -> None:
    with collecting() as there:
        reporter = desk.begin(plain(there.port))
        reporter._settle_s = 1e9  # nothing counts as taken before the end
        desk.tell(5)
        there.wait_for(lambda found: len(found) == 5)
        assert desk.state.waiting == 5
        there.stop()
        reporter._settle_s = 0.05
        there.start()
        until(lambda: desk.state.waiting == 0)
        assert numbers(there.bodies) == [1, 2, 3, 4, 5]
        assert len(there.framed) == 10
        assert len(set(there.framed)) == 5  # what comes twice is the same, byte for byte


def test_a_collector_that_stands_still_holds_nothing_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporters, "_TIMEOUT_S", 0.3)
    monkeypatch.setattr(reporters, "_STOP_S", 0.3)
    with collecting() as there:
        there.reads = False
        desk.tell(4000)  # more than the kernel takes for a reader that does not read
        reporter = desk.begin(plain(there.port))
        until(lambda: desk.state.failed > 0)
        began = time.monotonic()
        desk.tell()
        assert time.monotonic() - began < 5  # who tells does not wait
        assert desk.state.reason == "collector-broke-off"
        reporter.stop()
        there.reads = True
        desk.begin(plain(there.port))
        until(lambda: desk.state.waiting == 0, within_s=60)
    assert desk.state.sent == 4001


def test_a_collector_that_talks_and_does_not_close_holds_nothing_up() -> None:
    is_over = threading.Event()

    def talks(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            while not is_over.wait(0.01):
                connection.send(b".")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=talks, args=[server], daemon=True)
        thread.start()
        line = plain(server.getsockname()[1]).open(timeout_s=5)
        with pytest.raises(TimeoutError):
            line.finish(within_s=0.2)
        is_over.set()
        line.close()
        thread.join()


def test_what_waits_is_sent_before_the_node_ends(desk: Desk) -> None:
    with collecting() as there:
        reporter = desk.begin(plain(there.port))
        reporter._settle_s = 1e9
        desk.tell(150)
        there.wait_for(bool)
        assert desk.state.waiting == 150
        reporter.stop()
        assert numbers(there.bodies) == list(range(1, 151))
    assert desk.state.waiting == 0


def test_without_a_collector_nothing_is_begun(desk: Desk) -> None:
    idle = AuditReporter(desk.database, None, keeping=FOR_LONG, clock=time.time)
    idle.start()
    idle.stop()


def test_what_waits_of_a_time_with_a_collector_expires_without_one(desk: Desk) -> None:
    desk.tell(3)
    desk.database.recorder = None
    reporter = AuditReporter(
        desk.database, None, keeping=Keeping(longest_s=-1, most=9), clock=time.time
    )
    reporter.start()
    until(lambda: desk.state.waiting == 0)
    reporter.stop()
    assert desk.state.dropped == 3


@pytest.mark.parametrize("keeping", [Keeping(longest_s=1e9, most=3), Keeping(longest_s=-1, most=9)])
def test_what_is_too_much_or_too_old_is_dropped_and_that_is_told(
    desk: Desk, keeping: Keeping
) -> None:
    desk.tell(8)
    with collecting() as there:
        desk.begin(plain(there.port), keeping)
        until(lambda: desk.state.waiting == 0)
        dropped = 5 if keeping.most == 3 else 8
        assert desk.state.dropped == dropped
        assert numbers(there.bodies) == list(range(dropped + 1, 9))
        assert there.events[-1] == "Security Alert (Audit Recording Stopped) E 12"


def test_what_is_dropped_is_not_dropped_in_one_long_transaction(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporters, "_DROPPED_AT_ONCE", 3)
    desk.tell(8)
    with collecting() as there:
        desk.begin(plain(there.port), Keeping(longest_s=-1, most=9))
        until(lambda: desk.state.waiting == 0)
        assert numbers(there.bodies) == []
        assert there.events == ["Security Alert (Audit Recording Stopped) E 12"] * 3
    assert desk.state.dropped == 8


def test_udp_carries_one_message_in_a_datagram(desk: Desk) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.settimeout(20)
        desk.tell(2)
        desk.begin(Collector(host="127.0.0.1", port=there.getsockname()[1], transport="udp"))
        framed = [there.recv(100_000) for _ in range(2)]
        until(lambda: desk.state.waiting == 0)
    assert numbers([collectors.opened(one)["body"] for one in framed]) == [1, 2]


def test_a_message_that_no_datagram_holds_is_dropped_and_that_is_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message, "_LONGEST_TEXT", 100_000)
    with desk.database.write() as tx:
        about = events.resource("n:1", said="x" * 70_000)
        told._alert(tx, codes.SOFTWARE_CONFIGURATION, about, at=1.0)
    with socket.socket(type=socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.settimeout(20)
        desk.begin(Collector(host="127.0.0.1", port=there.getsockname()[1], transport="udp"))
        body = collectors.opened(there.recv(100_000))["body"]
    assert collectors.told(body) == "Security Alert (Audit Recording Stopped) E 12"
    assert desk.state.dropped == 1


def refused(collector: Collector) -> NodeError:
    with pytest.raises(RetryLater) as caught:
        collector.try_out(timeout_s=5)
    return caught.value


def test_a_collector_whose_certificate_is_not_trusted_gets_nothing(
    desk: Desk, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    table = TlsTable(ca=authority.certificate)
    with collecting(stranger.issue("collector")) as there:
        desk.tell()
        desk.begin(secure(there.port, table))
        until(lambda: desk.state.failed > 0)
        assert desk.state.reason == "tls-failed"
        assert "not trusted" in refused(secure(there.port, table)).detail
        assert there.framed == []


def test_other_certificates_are_taken_up_without_another_life(
    desk: Desk, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    with collecting(stranger.issue("collector")) as there:
        desk.tell()
        reporter = desk.begin(secure(there.port, TlsTable(ca=authority.certificate)))
        until(lambda: desk.state.failed > 0)
        reporter.change(secure(there.port, TlsTable(ca=stranger.certificate)))
        until(lambda: desk.state.waiting == 0)
        assert numbers(there.bodies) == [1]


def test_a_collector_of_another_name_gets_nothing(authority: Authority) -> None:
    with collecting(authority.issue("collector")) as there:
        table = TlsTable(ca=authority.certificate)
        assert refused(secure(there.port, table, name="elsewhere.example")).reason == "tls-failed"
        secure(there.port, table, name="").try_out(timeout_s=5)


def test_a_collector_that_wants_a_certificate_refuses_who_has_none(
    desk: Desk, authority: Authority
) -> None:
    """In TLS 1.3 it says so after the handshake: what was sent by then is not taken for sent."""
    table = TlsTable(ca=authority.certificate)
    ca = str(authority.certificate)
    with collecting(authority.issue("collector"), client_ca=ca) as there:
        assert "refuses our certificate" in refused(secure(there.port, table)).detail
        desk.tell(3)
        desk.begin(secure(there.port, table))
        until(lambda: desk.state.failed > 1)
        assert desk.state.waiting == 3
        assert desk.state.reason in ("tls-failed", "collector-broke-off")


def test_what_speaks_no_tls_is_told(authority: Authority) -> None:
    with collecting() as there:
        there.reads = False
        table = TlsTable(ca=authority.certificate)
        collector = secure(there.port, table)
        with pytest.raises(RetryLater, match="tls-failed"):
            collector.open(timeout_s=0.2)


def test_nobody_there_is_told() -> None:
    with collecting() as there:
        there.stop()
        assert refused(plain(there.port)).reason == "collector-unreachable"


RSYSLOG = """\
global(
  workDirectory="{folder}"
  maxMessageSize="64k"
  defaultNetstreamDriver="gtls"
  defaultNetstreamDriverCAFile="{ca}"
  defaultNetstreamDriverCertFile="{certificate}"
  defaultNetstreamDriverKeyFile="{key}"
)
module(
  load="imtcp"
  streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid"
)
input(type="imtcp" address="127.0.0.1" port="{port}")
template(name="whole" type="string" string="%pri% %timestamp:::date-rfc3339% %hostname% \
%app-name% %procid% %msgid% %msg%\\n")
action(type="omfile" file="{folder}/received.log" template="whole")
"""


@pytest.mark.server("rsyslog", "rsyslog-gnutls")
def test_rsyslog_takes_it_over_tls(
    desk: Desk, authority: Authority, tmp_path: Path, free_port: int
) -> None:
    theirs, ours = authority.issue("collector"), authority.issue("node")
    file = tmp_path / "rsyslog.conf"
    file.write_text(
        RSYSLOG.format(
            folder=tmp_path, port=free_port, ca=authority.certificate,
            certificate=theirs.certificate, key=theirs.key,
        )
    )  # fmt: skip
    table = TlsTable(certificate=ours.certificate, key=ours.key, ca=authority.certificate)
    there = secure(free_port, table)
    command = ["/usr/sbin/rsyslogd", "-n", "-f", str(file), "-i", str(tmp_path / "pid")]
    rsyslog = servers.Server(command=command, directory=tmp_path)
    rsyslog.start(lambda: is_there(there))
    try:
        desk.tell(300)
        desk.begin(there)
        until(lambda: desk.state.waiting == 0)
        received = tmp_path / "received.log"
        until(lambda: received.exists() and received.read_text().count("\n") >= 300)
        lines = received.read_text().splitlines()
    finally:
        rsyslog.stop()
    assert numbers(lines) == list(range(1, 301))
    assert desk.state.failed == 0
    pri, _, host, app, _, kind, body = lines[0].split(" ", 6)
    assert (pri, host, app, kind) == ("85", "ai1", "dicomnode", "DICOM+RFC3881")
    audit_schema.parsed(body.removeprefix("\ufeff"))


def is_there(collector: Collector) -> bool:
    try:
        collector.try_out(timeout_s=5)
    except RetryLater:
        return False
    return True
