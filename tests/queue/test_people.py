"""Whom a provider names, and which of its answers were taken: on both databases."""

from __future__ import annotations

import threading

from sqlalchemy import text

from dicomnode.archive.access import people
from dicomnode.archive.access.people import Role
from dicomnode.archive.database import Database

NOW = 1_795_790_000.0
ISSUER = "https://login.example"


def admit(database: Database, name: str, subject: str, *, role: Role = Role.VIEWER) -> bool:
    with database.write() as tx:
        return people.admit(tx, name, role=role, issuer=ISSUER, subject=subject, at=NOW)


def names(database: Database) -> dict[str, Role]:
    with database.read() as tx:
        return {one.name: one.role for one in people.every(tx)}


def test_a_person_is_issuer_and_subject(database: Database) -> None:
    assert admit(database, "ada", "1")
    assert admit(database, "ada", "1", role=Role.OPERATOR)
    assert names(database) == {"ada": Role.OPERATOR}
    assert not admit(database, "ada", "2")
    assert admit(database, "grace", "2")
    assert admit(database, "ada.lovelace", "1")
    assert names(database) == {"ada.lovelace": Role.VIEWER, "grace": Role.VIEWER}


def test_accounts_of_the_node_are_many_and_nobody_takes_one_over(database: Database) -> None:
    with database.write() as tx:
        for name in ("root", "admin"):  # neither has a subject
            assert people.add(tx, name, role=Role.ADMINISTRATOR, password_hash="x", at=NOW)
    assert not admit(database, "root", "1")
    assert not admit(database, "root", "")
    assert names(database) == {"root": Role.ADMINISTRATOR, "admin": Role.ADMINISTRATOR}


def test_who_is_dismissed_or_renamed_has_no_session(database: Database) -> None:
    admit(database, "ada", "1")
    with database.write() as tx:
        people.begin(tx, "token", name="ada", address="", at=NOW, ends_at=NOW + 60)
        assert people.signed_in(tx, "token", at=NOW) is not None
        assert not people.dismiss(tx, issuer=ISSUER, subject="2")
        assert people.dismiss(tx, issuer=ISSUER, subject="1")
        assert people.signed_in(tx, "token", at=NOW) is None


def test_an_answer_is_taken_once_and_forgotten_when_nobody_can_give_it_again(
    database: Database,
) -> None:
    with database.write() as tx:
        assert people.take_once(tx, "a", at=NOW, ends_at=NOW + 600)
        assert not people.take_once(tx, "a", at=NOW + 599, ends_at=NOW + 600)
        assert people.take_once(tx, "b", at=NOW + 600, ends_at=NOW + 1200)
        assert people.take_once(tx, "a", at=NOW + 600, ends_at=NOW + 1200)


def test_who_signs_in_as_the_password_changes_has_no_session_afterwards(
    database: Database,
) -> None:
    with database.write() as tx:
        people.add(tx, "ada", role=Role.VIEWER, password_hash="old", at=NOW)
        known = people.person(tx, "ada")
    assert known is not None

    def change() -> None:
        with database.write() as tx:
            assert people.set_password(tx, "ada", password_hash="new", at=NOW)

    changing = threading.Thread(target=change)
    with database.write() as tx:
        assert people.is_as_it_was(tx, known)
        changing.start()
        while not _waits(database):
            assert changing.is_alive()
        people.begin(tx, "token", name="ada", address="", at=NOW, ends_at=NOW + 60)
    changing.join()
    with database.write() as tx:
        assert people.signed_in(tx, "token", at=NOW) is None
        assert not people.is_as_it_was(tx, known)


def _waits(database: Database) -> bool:
    """Whether somebody waits for a lock; of SQLite's, which are taken at the begin, nobody says."""
    if database.url.startswith("sqlite"):
        return True
    with database.read() as tx:
        asked = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(tx.scalar(asked))
