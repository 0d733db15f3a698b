"""What the page and the numbers say of alerts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from paged import NOW, Pages, pages

from dicomnode.alert import Channel, Kind
from dicomnode.archive.alerts import messages, standing


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Pages]:
    with pages(tmp_path) as made:
        yield made


def open_(web: Pages, kind: Kind, subject: str = "", **facts: object) -> standing.Alert:
    with web.database.write() as tx:
        made = standing.loom(tx, kind, subject, since=NOW - 1500, at=NOW - 10, facts=facts)
        standing.begin(tx, made, [Channel.EMAIL], at=NOW - 10)
    return made


def test_where_nothing_is_wrong_it_says_so(web: Pages) -> None:
    browser = web.as_("viewer")
    assert "Nothing is wrong" in browser.get("/alerts").text
    assert "Nobody is told" in browser.get("/alerts").text
    for path in ("/studies", "/workers"):
        assert 'aria-label="Alerts"' not in browser.get(path).text


def test_what_is_wrong_stands_above_everything(web: Pages) -> None:
    open_(web, Kind.DESTINATION_DOWN, "pacs", count=3, reasons={"destination-unreachable": 3})
    browser = web.as_("viewer")
    for path in ("/studies", "/studies-list", "/workers", "/workers-part"):
        text = browser.get(path).text
        assert "pacs takes no results; 3 deliveries do not get through." in text
        assert "3 destination-unreachable" in text
    text = browser.get("/alerts").text
    assert "dicomnode check node.toml --live" in text
    assert "begun by email: waiting" in text


def test_what_is_over_is_history(web: Pages) -> None:
    made = open_(web, Kind.NO_WORKER, count=2)
    with web.database.write() as tx:
        standing.end(tx, made, [Channel.EMAIL], at=NOW - 5)
    browser = web.as_("viewer")
    assert 'aria-label="Alerts"' not in browser.get("/studies").text
    text = browser.get("/alerts").text
    assert "Nothing is wrong" in text
    assert "No worker runs models; 2 jobs wait." in text
    assert "begun by email: dropped" in text
    assert "over by email: waiting" in text


def test_a_channel_that_does_not_work_is_seen(web: Pages) -> None:
    open_(web, Kind.NO_WORKER, count=2)
    with web.database.write() as tx:
        claimed = messages.claim(tx, Channel.EMAIL, at=NOW, lease_s=60)
        assert claimed is not None
        messages.put_off(
            tx, claimed, not_before=NOW + 60, reason="mail-unreachable", detail="mail:25 is away."
        )
    browser = web.as_("viewer")
    for path in ("/studies", "/workers", "/alerts"):
        text = browser.get(path).text
        assert "Messages by email cannot be sent, 1 waits" in text
        assert "mail-unreachable" in text


def test_history_has_pages(web: Pages) -> None:
    for number in range(60):
        made = open_(web, Kind.DESTINATION_DOWN, f"p{number}", count=1)
        with web.database.write() as tx:
            standing.end(tx, made, [], at=NOW)
    browser = web.as_("viewer")
    first = browser.get("/alerts").text
    assert first.count('<tr id="r') == 50
    older = browser.get("/alerts?before=11").text
    assert older.count('<tr id="r') == 10
    for nonsense in ("x", "-1", "9" * 30):
        assert browser.get(f"/alerts?before={nonsense}").status_code == 422


def test_whoever_has_not_signed_in_sees_nothing(web: Pages) -> None:
    assert web.browser().get("/alerts").status_code == 303
    assert web.browser().get("/alerts-part").status_code in (303, 401)


def test_the_numbers_name_every_kind(web: Pages) -> None:
    open_(web, Kind.DISK_NEARLY_FULL, "7f", free_bytes=1, host="gpu1")
    text = web.browser().get("/metrics").text
    assert 'dicomnode_alerts{alert="disk-nearly-full"} 1.0' in text
    for kind in set(Kind) - {Kind.DISK_NEARLY_FULL}:
        assert f'dicomnode_alerts{{alert="{kind}"}} 0.0' in text
    assert 'dicomnode_alert_messages_waiting{channel="email"} 1.0' in text
    assert 'dicomnode_alert_messages_waiting{channel="webhook"} 0.0' in text


def test_something_that_is_wrong_makes_the_pages_look_again(web: Pages) -> None:
    from dicomnode.archive.asked import figures

    with web.database.read() as tx:
        before = figures.pulse(tx)
    open_(web, Kind.NO_WORKER, count=2)
    with web.database.read() as tx:
        assert figures.pulse(tx) != before
