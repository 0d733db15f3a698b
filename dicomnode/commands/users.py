"""`dicomnode users …`: who may sign in to the page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection

from dicomnode import config, render
from dicomnode.archive.access import audit, people
from dicomnode.archive.access.audit import Action
from dicomnode.archive.access.people import Role
from dicomnode.archive.auditing.recording import database_of
from dicomnode.console import DEFAULT_FILE, EXIT_FAILED, FileOption, Json, err, out, show, user
from dicomnode.errors import Misconfigured
from dicomnode.web import passwords

users = typer.Typer(help="Who may sign in to the page.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What somebody signs in as.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(help="A file with the password and nothing else; otherwise it is asked for."),
]
_LONGEST_NAME = 64


@users.command("add")
def users_add(
    name: Name,
    *,
    role: Annotated[Role, typer.Option(help="A viewer sees; an operator acts; or all.")],
    password_file: PasswordFile = None,
    file: FileOption = DEFAULT_FILE,
) -> None:
    """Make an account."""
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise Misconfigured(
            "bad-name", f"A name has 1 to {_LONGEST_NAME} characters, and no space around them."
        )
    password_hash = passwords.hashed(_password(password_file))
    with _writing(file) as tx:
        made = people.add(tx, name, role=role, password_hash=password_hash, at=time.time())
        if made:
            _note(tx, Action.ADD_PERSON, name, detail=str(role))
    _tell(made, f"{name} may sign in as {role}.", f"There is an account {name} already.")


@users.command("list")
def users_list(*, file: FileOption = DEFAULT_FILE, as_json: Json = False) -> None:
    """Show every account."""
    with _writing(file) as tx:
        every = people.every(tx)
        sessions = people.last_seen(tx, at=time.time())
    document = [
        {
            "name": one.name,
            "role": str(one.role),
            "issuer": one.issuer,
            "created_at": one.created_at,
            "sessions": sessions.get(one.name, (0, 0.0))[0],
        }
        for one in every
    ]
    show(document, as_json=as_json, text=render.people)


@users.command("remove")
def users_remove(name: Name, *, file: FileOption = DEFAULT_FILE) -> None:
    """Remove an account and end its sessions."""
    with _writing(file) as tx:
        removed = people.remove(tx, name)
        if removed:
            _note(tx, Action.REMOVE_PERSON, name)
    _tell(removed, f"{name} may not sign in any more.", _nobody(name))


@users.command("password")
def users_password(
    name: Name, *, password_file: PasswordFile = None, file: FileOption = DEFAULT_FILE
) -> None:
    """Change a password, and end the sessions that the old one opened."""
    password_hash = passwords.hashed(_password(password_file))
    with _writing(file) as tx:
        changed = people.set_password(tx, name, password_hash=password_hash, at=time.time())
        if changed:
            _note(tx, Action.SET_PASSWORD, name)
    _tell(changed, f"{name} has a new password.", f"{_nobody(name)[:-1]} with a password.")


@contextmanager
def _writing(file: Path) -> Iterator[Connection]:
    """The database of a node, which may never have run."""
    database = database_of(config.load(file))
    try:
        database.migrate()
        with database.write() as tx:
            yield tx
    finally:
        database.close()


def _note(tx: Connection, action: Action, name: str, *, detail: str = "") -> None:
    """Write down what was done from here: by whom of this machine's users is not known."""
    audit.write(tx, action, at=time.time(), person=user(), subject=name, detail=detail)


def _password(file: Path | None) -> str:
    if file is None:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        try:
            password = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured("password-unreadable", f"{file} cannot be read.") from error
    fault = passwords.fault(password)
    if fault:
        raise Misconfigured("bad-password", fault)
    return str(password)


def _nobody(name: str) -> str:
    return f"There is no account {name}."


def _tell(is_done: bool, done: str, not_done: str) -> None:  # noqa: FBT001 - two sentences
    if not is_done:
        err.print(not_done, markup=False)
        raise typer.Exit(EXIT_FAILED)
    out.print(done, markup=False)
