"""`dicomnode users …`: accounts from the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomnode import cli, config
from dicomnode.archive.access import audit, people
from dicomnode.archive.database import Database
from dicomnode.errors import Misconfigured
from dicomnode.web import passwords

PASSWORD = "correct horse battery"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "node.toml"
    found.write_text('[node]\ndata_dir = "data"\n')
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return found


def run(file: Path, *words: str, given: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["users", *words, "--config", str(file)], input=given)
    if isinstance(done.exception, Misconfigured):
        raise done.exception
    return done.exit_code, done.output


def add(file: Path, name: str = "ada", role: str = "administrator") -> tuple[int, str]:
    password = str(file.parent / "password")
    return run(file, "add", name, "--role", role, "--password-file", password)


def test_an_account_is_made_before_the_node_has_ever_run(file: Path) -> None:
    assert add(file) == (0, "ada may sign in as administrator.\n")
    assert add(file)[0] == 1
    database = Database(config.load(file, {}).database.url)
    with database.read() as tx:
        person = people.person(tx, "ada")
        lines = audit.newest(tx, limit=9)
    database.close()
    assert person is not None
    assert passwords.is_right(PASSWORD, person.password_hash)
    assert [(one.action, one.subject, one.detail) for one in lines] == [
        ("add person", "ada", "administrator")
    ]


def test_an_account_is_made_by_a_user_without_a_name(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert add(file)[0] == 0
    database = Database(config.load(file, {}).database.url)
    with database.read() as tx:
        (line,) = audit.newest(tx, limit=9)
    database.close()
    assert line.person == f"uid {2**31 - 7}"


def test_the_password_is_asked_for_twice_on_a_terminal(file: Path) -> None:
    given = f"{PASSWORD}\n{PASSWORD}\n"
    code, said = run(file, "add", "ada", "--role", "viewer", given=given)
    assert code == 0
    assert PASSWORD not in said


def test_accounts_are_listed_changed_and_removed(file: Path, tmp_path: Path) -> None:
    assert "Nobody may sign in" in run(file, "list")[1]
    add(file, "ada")
    add(file, "vera", "viewer")
    _, said = run(file, "list", "--json")
    assert [(one["name"], one["role"]) for one in json.loads(said)] == [
        ("ada", "administrator"),
        ("vera", "viewer"),
    ]
    assert "administrator" in run(file, "list")[1]
    (tmp_path / "password").write_text("another password\n")
    password = str(tmp_path / "password")
    assert run(file, "password", "ada", "--password-file", password)[0] == 0
    assert run(file, "password", "nobody", "--password-file", password)[0] == 1
    assert run(file, "remove", "vera")[0] == 0
    assert run(file, "remove", "vera")[0] == 1


@pytest.mark.parametrize("password", ["short", "", "x" * 2000])
def test_a_password_that_is_none_is_refused(file: Path, tmp_path: Path, password: str) -> None:
    (tmp_path / "password").write_text(password)
    with pytest.raises(Misconfigured, match="bad-password"):
        add(file)


def test_a_password_file_that_is_not_there_is_named(file: Path, tmp_path: Path) -> None:
    (tmp_path / "password").unlink()
    with pytest.raises(Misconfigured, match="password-unreadable"):
        add(file)


@pytest.mark.parametrize("name", [" ", "", " ada", "ada ", "x" * 65, "a\nb"])
def test_a_name_that_is_none_is_refused(file: Path, name: str) -> None:
    with pytest.raises(Misconfigured, match="bad-name"):
        add(file, name)
