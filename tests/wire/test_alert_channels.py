"""Messages on the wire: a real mail server and a real receiver, and some that are neither."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import alerted
import channels
import paged
import pytest
from certificates import Authority
from channels import PASSWORD, SECRET, USER, MailServer, mail_server, receiver
from running import wait_for
from typer.testing import CliRunner

from dicomnode import check, cli, config
from dicomnode.alert import Channel, Kind, Occasion
from dicomnode.alerting import Alerting, letter
from dicomnode.alerting.letter import Letter
from dicomnode.alerting.mail import Mailer
from dicomnode.alerting.webhook import Poster
from dicomnode.archive.alerts import messages
from dicomnode.archive.alerts.messages import Message
from dicomnode.archive.database import Database
from dicomnode.errors import RetryLater

NOW = paged.NOW


def node(folder: Path, *tables: str) -> config.Configuration:
    return alerted.configured(folder, "\n".join(tables))


def a_letter(configuration: config.Configuration, occasion: Occasion = Occasion.BEGUN) -> Letter:
    message = Message(
        id=12, alert=7, channel=Channel.EMAIL, occasion=occasion, kind=Kind.DESTINATION_DOWN,
        subject="pacs", since=NOW - 1200, at=NOW, attempts=0,
        facts={"count": 3, "reasons": {"destination-unreachable": 3}},
    )  # fmt: skip
    return letter.of(message, configuration)


def mail(folder: Path, *tables: str, occasion: Occasion = Occasion.BEGUN) -> str:
    configuration = node(folder, *tables)
    assert configuration.alerts.email is not None
    mailer = Mailer(table=configuration.alerts.email, timeout_s=5)
    return asyncio.run(mailer.send(a_letter(configuration, occasion)))


def refusal(folder: Path, table: str, *, timeout_s: float = 5) -> RetryLater:
    configuration = node(folder, table)
    email, webhook = configuration.alerts.email, configuration.alerts.webhook
    sender: Any = (
        Mailer(table=email, timeout_s=timeout_s)
        if email
        else Poster(table=webhook, timeout_s=timeout_s)  # type: ignore[arg-type]
    )
    with pytest.raises(RetryLater) as caught:
        asyncio.run(sender.send(a_letter(configuration)))
    return caught.value


# ── E-mail ──────────────────────────────────────────────────────────────────────────────────────


def test_a_message_arrives_in_plain_words(tmp_path: Path) -> None:
    with mail_server() as server:
        mail(tmp_path, server.table())
    (message,) = server.messages
    assert message["From"] == "node@hospital.example"
    assert message["To"] == "team@hospital.example"
    assert message["Auto-Submitted"] == "auto-generated"
    assert re.fullmatch(r"<alert-7-[0-9a-f]{12}@hospital\.example>", message["Message-ID"])
    assert message["Subject"] == (
        "[DICOMNODE] pacs takes no results; 3 deliveries do not get through."
    )
    text = message.get_content()
    for told in ("(20 minutes)", "Seen: 3 destination-unreachable", "What to do:", "1. ",
                 "DicomnodeDestinationDown"):  # fmt: skip
        assert told in text


def test_the_end_belongs_to_the_conversation_of_the_begin(tmp_path: Path) -> None:
    with mail_server() as server:
        mail(tmp_path, server.table(), occasion=Occasion.OVER)
    (message,) = server.messages
    begun = a_letter(node(tmp_path)).id
    assert message["Message-ID"] == f"<{begun}-over@hospital.example>"
    assert message["In-Reply-To"] == message["References"] == f"<{begun}@hospital.example>"
    assert message["Subject"].startswith("[DICOMNODE] Over: ")


@pytest.mark.server("openssl")
@pytest.mark.parametrize("implicit", [False, True])
def test_a_password_goes_over_tls_alone(
    tmp_path: Path, authority: Authority, *, implicit: bool
) -> None:
    password = channels.written(tmp_path, "password", PASSWORD + "\n")
    tls = channels.server_context(authority.issue("mail"))
    with mail_server(tls=tls, implicit=implicit, sign_in=True) as server:
        table = server.table(user=USER, password_file=str(password), ca=str(authority.certificate))
        mail(tmp_path, table)
        assert server.encrypted == [True]
        password.write_text("wrong")
        refused = refusal(tmp_path, table)
        assert refused.reason == "mail-sign-in-refused"
        assert "wrong" not in refused.detail
        password.unlink()
        assert refusal(tmp_path, table).reason == "mail-password-unreadable"


@pytest.mark.server("openssl")
@pytest.mark.parametrize("implicit", [False, True])
def test_a_server_that_nobody_vouches_for_gets_no_message(
    tmp_path: Path, authority: Authority, *, implicit: bool
) -> None:
    stranger = Authority(tmp_path / "stranger")
    for issued in (stranger.issue("mail"), authority.issue("mail", host="10.9.9.9")):
        tls = channels.server_context(issued)
        with mail_server(tls=tls, implicit=implicit) as server:
            refused = refusal(tmp_path, server.table(ca=str(authority.certificate)))
            assert refused.reason == "mail-tls-failed"
            assert server.messages == []


def test_a_server_that_offers_no_starttls_gets_no_message(tmp_path: Path) -> None:
    with mail_server() as server:
        refused = refusal(tmp_path, server.table(security="starttls"))
        assert refused.reason == "mail-not-supported"
        assert server.messages == []


def test_a_server_that_takes_no_sign_in_gets_no_message(tmp_path: Path) -> None:
    password = channels.written(tmp_path, "password", PASSWORD)
    with mail_server() as server:
        table = server.table(user=USER, password_file=str(password))
        assert refusal(tmp_path, table).reason == "mail-not-supported"
        assert server.messages == []


def test_what_a_server_refuses_is_told_by_its_code_alone(tmp_path: Path) -> None:
    with mail_server(refuse="554 5.7.1 No, Dr. Lindqvist has left") as server:
        refused = refusal(tmp_path, server.table())
    assert refused.reason == "mail-refused"
    assert "554" in refused.detail
    assert "Lindqvist" not in refused.detail


def test_a_recipient_that_is_not_known(tmp_path: Path) -> None:
    both = 'to = ["team@hospital.example", "gone@hospital.example"]'
    with mail_server(unknown="gone@hospital.example") as server:
        table = server.table().replace('to = ["team@hospital.example"]', both)
        # Those who are known have it, and get it once.
        assert mail(tmp_path, table) == "The mail server refused 1 of 2 recipients."
        assert len(server.messages) == 1
        nobody = server.table().replace("team@", "gone@")
        assert refusal(tmp_path, nobody).reason == "mail-recipient-refused"


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        (channels.says_nothing, "mail-timeout"),
        (channels.drips, "mail-timeout"),
        (channels.hangs_up, "mail-unreachable"),
    ],
)
def test_a_mail_server_that_is_none_is_left_in_time(tmp_path: Path, talk: Any, reason: str) -> None:
    with channels.rude(talk) as port:
        table = MailServer(port=port).table()
        assert refusal(tmp_path, table, timeout_s=0.3).reason == reason


def test_a_mail_server_that_is_not_there(tmp_path: Path, free_port: int) -> None:
    assert refusal(tmp_path, MailServer(port=free_port).table()).reason == "mail-unreachable"


# ── Webhooks ────────────────────────────────────────────────────────────────────────────────────


def hook(url: str, **more: str) -> str:
    keys = {"url": url, **more}
    return "[alerts.webhook]\n" + "".join(f'{key} = "{one}"\n' for key, one in keys.items())


def post(folder: Path, table: str) -> None:
    configuration = node(folder, table)
    assert configuration.alerts.webhook is not None
    poster = Poster(table=configuration.alerts.webhook, timeout_s=5)
    asyncio.run(poster.send(a_letter(configuration)))


@pytest.mark.parametrize("is_encoded", [False, True])
def test_a_receiver_can_tell_that_a_message_is_ours(tmp_path: Path, *, is_encoded: bool) -> None:
    text = f"whsec_{base64.b64encode(SECRET.encode()).decode()}" if is_encoded else SECRET
    file = channels.written(tmp_path, "signing", text + "\n")
    with receiver() as there:
        post(tmp_path, hook(there.url, secret_file=str(file)))
    ((headers, body),) = there.posted
    now = time.time()
    assert channels.is_genuine(headers, body, secret=SECRET.encode(), now=now)
    assert not channels.is_genuine(headers, body + b" ", secret=SECRET.encode(), now=now)
    assert not channels.is_genuine(headers, body, secret=b"x" * 32, now=now)
    assert not channels.is_genuine(headers, body, secret=SECRET.encode(), now=now + 900)
    other = {**headers, "webhook-id": "alert-8"}
    assert not channels.is_genuine(other, body, secret=SECRET.encode(), now=now)
    assert headers["webhook-id"].startswith("alert-7-")
    assert headers["content-type"] == "application/json"


def test_what_is_posted_is_read_by_programs_and_by_people(tmp_path: Path) -> None:
    with receiver() as there:
        post(tmp_path, hook(there.url))
    (document,) = there.documents
    assert document["type"] == "dicomnode.alert.begun"
    assert document["text"].startswith("[DICOMNODE] pacs takes no results")
    data = document["data"]
    assert (data["alert"], data["severity"], data["about"]) == (
        "destination-down", "critical", "pacs",
    )  # fmt: skip
    assert data["rule"] == "DicomnodeDestinationDown"
    assert data["to_do"]
    ((headers, _),) = there.posted
    assert "webhook-signature" not in headers


def test_a_url_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    with receiver() as there:
        file = channels.written(tmp_path, "url", there.url + "\n")
        post(tmp_path, f'[alerts.webhook]\nurl_file = "{file}"\n')
        assert len(there.posted) == 1
    file.write_text("ftp://nowhere")
    refused = refusal(tmp_path, f'[alerts.webhook]\nurl_file = "{file}"\n')
    assert refused.reason == "webhook-url-unreadable"
    assert "nowhere" not in refused.detail


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_what_a_receiver_refuses_is_sent_again(tmp_path: Path, status: int) -> None:
    with receiver(status=status) as there:
        refused = refusal(tmp_path, hook(there.url))
    assert refused.reason == "webhook-refused"
    assert str(status) in refused.detail
    assert "token" not in refused.detail


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(tmp_path: Path, status: int) -> None:
    with receiver() as elsewhere, receiver(status=status) as there:
        there.headers["location"] = elsewhere.url
        refused = refusal(tmp_path, hook(there.url))
        assert refused.reason == "webhook-refused"
        assert "no redirect is followed" in refused.detail
        assert elsewhere.asked == []


def test_a_long_answer_is_not_read(tmp_path: Path) -> None:
    with receiver(status=200, body=b"x" * 50_000_000) as there:
        post(tmp_path, hook(there.url))
    assert len(there.posted) == 1


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        (channels.says_nothing, "webhook-timeout"),
        (channels.drips, "webhook-timeout"),
        (channels.hangs_up, "webhook-broken-off"),
    ],
)
def test_a_receiver_that_is_none_is_left_in_time(tmp_path: Path, talk: Any, reason: str) -> None:
    with channels.rude(talk) as port:
        table = hook(f"http://127.0.0.1:{port}/")
        assert refusal(tmp_path, table, timeout_s=0.3).reason == reason


def test_a_receiver_that_is_not_there(tmp_path: Path, free_port: int) -> None:
    table = hook(f"http://127.0.0.1:{free_port}/")
    assert refusal(tmp_path, table).reason == "webhook-unreachable"


@pytest.mark.server("openssl")
def test_a_receiver_is_known_by_its_certificate(tmp_path: Path, authority: Authority) -> None:
    tls = channels.server_context(authority.issue("hook"))
    with receiver(tls=tls) as there:
        post(tmp_path, hook(there.url, ca=str(authority.certificate)))
        stranger = Authority(tmp_path / "stranger")
        refused = refusal(tmp_path, hook(there.url, ca=str(stranger.certificate)))
        assert refused.reason == "webhook-tls-failed"
        assert len(there.posted) == 1


def test_no_proxy_of_the_surroundings_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port}")
    with receiver() as there:
        post(tmp_path, hook(there.url))
    assert len(there.posted) == 1


def test_a_secret_that_can_be_guessed_signs_nothing(tmp_path: Path) -> None:
    file = channels.written(tmp_path, "signing", "short")
    with receiver() as there:
        refused = refusal(tmp_path, hook(there.url, secret_file=str(file)))
        assert refused.reason == "webhook-secret-unreadable"
        assert there.posted == []


# ── Both, from the database ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def watch(tmp_path: Path) -> Any:
    database = Database(f"sqlite:///{tmp_path}/node.db")
    database.migrate()
    made = alerted.Watch(database=database, configuration=alerted.configured(tmp_path))
    with database.write() as tx:
        alerted.fail(tx, "1.2.1", at=NOW)
    made.watch(120)
    yield made
    database.close()


def test_a_channel_that_hangs_holds_up_no_other_and_is_tried_again_later(
    tmp_path: Path, watch: alerted.Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomnode.alerting.postman.Mailer", _impatient)
    with channels.rude(channels.says_nothing) as port, receiver() as there:
        tables = (MailServer(port=port).table(), hook(there.url))
        watch.configuration = node(tmp_path, *tables)
        watch.send()
        assert [one["data"]["alert"] for one in there.documents] == ["study-failed"]
    with mail_server() as server:
        watch.configuration = node(tmp_path, server.table())
        watch.send()
        assert server.messages == []  # its time has not come
        watch.now += 16
        watch.send()
        assert len(server.messages) == 1
        watch.now += HOUR
        watch.send()
        assert len(server.messages) == 1


def test_while_one_channel_hangs_the_other_tells_of_all(
    tmp_path: Path, watch: alerted.Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watch.database.write() as tx:
        alerted.job(tx, "1.2.9", at=NOW)
    watch.watch(400)
    monkeypatch.setattr("dicomnode.alerting.postman.Mailer", _endless)
    with channels.rude(channels.says_nothing) as port, receiver() as there:
        configuration = node(tmp_path, MailServer(port=port).table(), hook(there.url))
        telling = Alerting(watch.database, lambda: configuration, clock=lambda: watch.now)
        telling.start()
        wait_for(lambda: len(there.posted) == 2, what="both messages by the other channel")
        telling.stop()
    with watch.database.read() as tx:
        assert messages.waiting(tx) == {"email": 2}


_ENDS_THOUGH_A_NAME_SERVER_HANGS = """
import socket, sys, threading, time
from pathlib import Path
import alerted
from dicomnode.alerting import Alerting
from dicomnode.archive.database import Database

asked = threading.Event()
def hangs(*_args, **_more):
    asked.set()
    time.sleep(600)
socket.getaddrinfo = hangs
database = Database(sys.argv[2])
named = alerted.CHANNELS.replace("127.0.0.1", "mail.example")
configuration = alerted.configured(Path(sys.argv[1]), named)
telling = Alerting(database, lambda: configuration, clock=lambda: alerted.NOW + 300)
telling.start()
assert asked.wait(30)
telling.stop()
database.close()
"""


def test_a_name_server_that_hangs_keeps_no_node_from_its_end(
    tmp_path: Path, watch: alerted.Watch
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ENDS_THOUGH_A_NAME_SERVER_HANGS, str(tmp_path), watch.database.url],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_no_two_nodes_give_one_name_to_their_messages(tmp_path: Path) -> None:
    mine = node(tmp_path)
    other = mine.model_copy(update={"node": mine.node.model_copy(update={"ae_title": "OTHER"})})
    assert a_letter(mine).id != a_letter(other).id
    assert a_letter(mine).id == a_letter(mine, Occasion.OVER).thread


HOUR = 3600


def _endless(*, table: config.Email) -> Mailer:
    return Mailer(table=table, timeout_s=10 * HOUR)


def _impatient(*, table: config.Email) -> Mailer:
    return Mailer(table=table, timeout_s=0.3)


def test_the_pauses_grow(watch: alerted.Watch, tmp_path: Path, free_port: int) -> None:
    watch.configuration = node(tmp_path, MailServer(port=free_port).table())
    attempts = []
    start = watch.now
    while watch.now < start + 3000:
        if watch.claim() is not None:
            attempts.append(round(watch.now - start))
            _release(watch)
            watch.send()
        watch.now += 1
    gaps = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert gaps == [15, 30, 60, 120, 240, 480, 960]


def _release(watch: alerted.Watch) -> None:
    from sqlalchemy import update

    from dicomnode.archive import tables

    with watch.database.write() as tx:
        tx.execute(update(tables.alert_message).values(lease_until=None))


# ── The command line ────────────────────────────────────────────────────────────────────────────


def run(folder: Path, *words: str) -> Any:
    return CliRunner().invoke(cli.app, [*words, "--config", str(folder / "node.toml")])


def test_the_test_says_what_came_of_each_channel(tmp_path: Path, free_port: int) -> None:
    with mail_server() as server:
        node(tmp_path, server.table(), hook(f"http://127.0.0.1:{free_port}/token"))
        done = run(tmp_path, "alerts", "test", "--json")
    assert done.exit_code == 1
    email, webhook = json.loads(done.stdout)["channels"]
    assert email == {"channel": "email", "sent": True, "reason": "", "detail": ""}
    assert (webhook["sent"], webhook["reason"]) == (False, "webhook-unreachable")
    assert "token" not in done.output
    (message,) = server.messages
    assert message["Subject"] == "[DICOMNODE] Test: messages of this node arrive here."


def test_a_test_that_arrives_everywhere_is_a_success(tmp_path: Path) -> None:
    with mail_server() as server, receiver() as there:
        node(tmp_path, server.table(), hook(there.url))
        done = run(tmp_path, "alerts", "test")
    assert done.exit_code == 0, done.output
    assert done.output.split("\n")[:2] == ["email: sent.", "webhook: sent."]


def test_without_a_channel_there_is_nothing_to_test(tmp_path: Path) -> None:
    node(tmp_path)
    done = run(tmp_path, "alerts", "test")
    assert done.exception is not None
    assert "no-channel" in str(done.exception)


def test_check_asks_the_mail_server_and_sends_nothing(tmp_path: Path, free_port: int) -> None:
    with mail_server() as server:
        node(tmp_path, server.table())
        assert _live(tmp_path) == {}
        assert server.messages == []
    node(tmp_path, MailServer(port=free_port).table())
    assert _live(tmp_path) == {"alerts.email.host": "mail-unreachable"}


def _live(folder: Path) -> dict[str, str]:
    problems = check.run(folder / "node.toml", {}, live=True)
    return {one.path: one.code for one in problems if one.path.startswith("alerts")}
