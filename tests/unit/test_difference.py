"""What differs between two configurations, and when each change is taken up."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.config import Configuration, When, tree
from dicomnode.config.difference import (
    _NOW,
    _NOW_KEYS,
    _WORKERS,
    concerns_workers,
    fingerprint,
    waits_in_workers,
)

BASE = """
[node]
ae_title = "NODE"

[peers.ct1]
ae_title = "CT1"
host = "10.0.0.5"

[peers.pacs]
ae_title = "PACS"
host = "10.0.0.4"
port = 104

[models.lung]
bundle = "lung"

[[routes]]
name = "lungs"
model = "lung"
series = { Modality = "CT" }
send_to = ["pacs"]

[[routes]]
name = "others"
model = "lung"
series = { Modality = "MR" }
send_to = ["pacs"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def load(folder: Path, text: str) -> Configuration:
    file = folder / "node.toml"
    file.write_text(text)
    return config.load(file, {})


def changes(folder: Path, old: str, new: str) -> dict[str, tuple[str | None, str | None, When]]:
    found = config.difference(load(folder, old), load(folder, new))
    return {one.path: (one.old, one.new, one.when) for one in found}


def test_the_same_differs_in_nothing(folder: Path) -> None:
    assert changes(folder, BASE, BASE + "# a remark\n") == {}


def test_each_key_that_differs_is_named_with_both_values(folder: Path) -> None:
    new = BASE.replace("port = 104", "port = 11112\nconfirm = 'none'")
    assert changes(folder, BASE, new) == {
        "peers.pacs.port": ("104", "11112", When.NOW),
        "peers.pacs.confirm": ("find", "none", When.NOW),
    }


def test_a_table_in_a_table_that_comes_is_named_by_its_keys(folder: Path) -> None:
    new = BASE.replace("port = 104", "port = 104\ncommitment = { port = 105 }")
    assert changes(folder, BASE, new) == {"peers.pacs.commitment.port": ("", "105", When.NOW)}


def test_what_came_and_what_went_is_named_whole(folder: Path) -> None:
    new = BASE.replace("[peers.ct1]", "[peers.mr1]").replace('"CT1"', '"MR1"')
    assert changes(folder, BASE, new) == {
        "peers.ct1": ("ae_title = CT1; host = 10.0.0.5", None, When.NOW),
        "peers.mr1": (None, "ae_title = MR1; host = 10.0.0.5", When.NOW),
    }


def test_a_route_is_known_by_its_name_wherever_it_stands(folder: Path) -> None:
    new = BASE.replace('series = { Modality = "CT" }', 'series = { Modality = ["CT", "PT"] }')
    path = "routes.lungs.series"
    assert changes(folder, BASE, new) == {
        path: ('Modality = "CT"', 'Modality any of "CT", "PT"', When.NOW)
    }
    first, second = BASE.index("[[routes]]"), BASE.rindex("[[routes]]")
    turned = BASE[:first] + BASE[second:] + BASE[first:second]
    assert changes(folder, BASE, turned) == {"routes": ("lungs, others", "others, lungs", When.NOW)}


def test_another_order_of_the_routes_is_named_also_where_one_comes(folder: Path) -> None:
    head, one, other = BASE.split("[[routes]]")
    third = one.replace('"lungs"', '"third"')
    found = changes(folder, BASE, f"{head}[[routes]]{third}[[routes]]{other}[[routes]]{one}")
    assert found["routes"] == ("lungs, others", "others, lungs", When.NOW)
    assert set(found) == {"routes", "routes.third"}


def test_a_password_that_changed_is_a_change_and_is_not_shown(folder: Path) -> None:
    database = '[database]\nurl = "postgresql+psycopg://node:{}@db/node"\n'
    found = changes(folder, database.format("s3cr3t") + BASE, database.format("0ther") + BASE)
    assert list(found) == ["database.url"]
    assert "s3cr3t" not in str(found)
    assert "0ther" not in str(found)


@pytest.mark.parametrize(
    ("key", "when"),
    [
        ("[listen]\nport = 104", When.RESTART),
        ("[listen]\nidle_s = 10", When.NOW),
        ("[listen]\nmax_associations = 10", When.NOW),
        ("[listen]\nprocesses = 2", When.RESTART),
        ("[complete]\nquiet_s = 3", When.NOW),
        ("[disk]\nkeep_delivered_days = 3", When.NOW),
        ("[deliver]\nretry_s = 3", When.NOW),
        ("[worker]\nslots = 2", When.WORKERS),
        ('[queue]\nbroker = "redis://redis"', When.WORKERS),
        ('[database]\nurl = "sqlite:///other.db"', When.RESTART),
        ("[web]\nport = 8080", When.RESTART),
        ("[web]\nsession_hours = 1", When.NOW),
        ('[web]\npublic_url = "https://node.example"', When.NOW),
        ('[oidc]\nbutton = "Sign in with us"', When.NOW),
    ],
)
def test_each_change_says_when_it_is_taken_up(folder: Path, key: str, when: When) -> None:
    (found,) = changes(folder, BASE, f"{key}\n{BASE}").values()
    assert found[2] is when


def test_what_is_in_force_has_what_can_be_taken_up_and_waits_for_the_rest(folder: Path) -> None:
    old = load(folder, BASE)
    new = load(
        folder,
        "[listen]\nport = 104\nidle_s = 10\n[disk]\nfloor_gib = 0.1\n"
        + BASE.replace('"NODE"', '"OTHER"').replace('"CT1"', '"CT2"'),
    )
    taken = config.in_force(old, new)
    assert taken.node == old.node
    assert (taken.listen.port, taken.listen.idle_s) == (11112, 10)
    assert (taken.disk, taken.peers) == (new.disk, new.peers)
    waiting = config.difference(taken, new)
    assert {one.path for one in waiting} == {"node.ae_title", "listen.port"}
    assert {one.when for one in waiting} == {When.RESTART}


def test_a_key_that_nobody_has_thought_of_waits_for_a_restart() -> None:
    """Whoever adds a section decides: what is listed here can be taken up, whole or in part."""
    known = {*tree.SECTIONS, *tree.COLLECTIONS}
    assert _NOW | _WORKERS | set(_NOW_KEYS) <= known
    for section, keys in _NOW_KEYS.items():
        assert keys <= set(tree.SECTIONS[section].model_fields)


def test_node_and_workers_compare_what_both_must_have_alike(folder: Path) -> None:
    one = load(folder, BASE)
    elsewhere = load(folder, '[worker]\ndevice = "cuda:1"\n[listen]\nport = 1\n' + BASE)
    assert config.digest(one) == config.digest(elsewhere)
    moved = load(folder, BASE.replace('bundle = "lung"', 'bundle = "elsewhere/lung"'))
    assert config.digest(one) == config.digest(moved)
    for old, new in (("104", "105"), ('"CT"', '"PT"'), ("[models.lung]", "[models.lungs]")):
        text = BASE.replace(old, new).replace('model = "lung"', 'model = "lungs"')
        text = text if new == "[models.lungs]" else BASE.replace(old, new)
        assert config.digest(load(folder, text)) != config.digest(one)


def test_the_order_of_the_peers_is_no_difference_to_anybody(folder: Path) -> None:
    ct1 = '[peers.ct1]\nae_title = "CT1"\nhost = "10.0.0.5"\n'
    assert ct1 in BASE
    one, other = load(folder, BASE), load(folder, BASE.replace(ct1, "") + ct1)
    assert list(one.peers) != list(other.peers)
    assert config.difference(one, other) == ()
    assert config.digest(one) == config.digest(other)  # no reload would make it the same again


def test_a_rule_that_changes_is_nothing_that_a_worker_begins_anew_for(folder: Path) -> None:
    one = load(folder, BASE)
    assert not concerns_workers(one, load(folder, BASE.replace('"CT"', '"PT"')))
    assert concerns_workers(one, load(folder, BASE.replace("104", "105")))
    assert concerns_workers(one, load(folder, BASE.replace('"lung"', '"lung2"', 1)))


def test_a_worker_does_not_go_to_another_database_by_itself(folder: Path) -> None:
    one = load(folder, BASE)
    more = '[database]\nurl = "sqlite:///other.db"\n[listen]\nport = 1\n[web]\nport = 2\n'
    other = load(folder, more + BASE)
    assert [change.path for change in waits_in_workers(one, other)] == ["database.url"]


def test_the_fingerprint_changes_with_every_key_and_with_secrets(folder: Path) -> None:
    database = '[database]\nurl = "postgresql+psycopg://node:{}@db/node"\n'
    webhook = '[alerts.webhook]\nurl = "https://hooks.example/{}"\n'
    texts = [
        BASE,
        BASE.replace("104", "105"),
        database.format("a") + BASE,
        database.format("b") + BASE,
        webhook.format("a") + BASE,
        webhook.format("b") + BASE,
    ]
    bundles = {"lung": "a"}
    prints = [fingerprint(load(folder, text), bundles=bundles, secret=b"here") for text in texts]
    assert len(set(prints)) == len(texts)
    base = load(folder, BASE)
    assert fingerprint(base, bundles=bundles, secret=b"here") == prints[0]
    assert fingerprint(base, bundles=bundles, secret=b"there") != prints[0]
    assert fingerprint(base, bundles={"lung": "b"}, secret=b"here") != prints[0]
