"""Who may sign in to the page, who has, and who tried in vain.

A password is kept as its argon2 hash, a session as the SHA-256 of its token: what stands here lets
nobody in. Whom an OpenID Connect provider names has no password; the account is what the provider
said at the last sign-in.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from dicomnode.archive import tables
from dicomnode.pauses import Pauses


class Role(StrEnum):
    """What somebody may do; each may also do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMINISTRATOR = "administrator"

    def includes(self, other: Role) -> bool:
        """Whether who has this role may do what `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, kw_only=True)
class Person:
    """An account.

    Attributes:
        password_hash: "" for somebody whom an OpenID Connect provider names.
        issuer: That provider; "" for an account of the node itself.
        subject: What the provider calls the person, for good; "" likewise.
    """

    name: str
    role: Role
    password_hash: str = field(repr=False)
    created_at: float
    changed_at: float
    issuer: str
    subject: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long who fails to sign in has to wait.

    Attributes:
        free: So many failures cost nothing.
        first_s: The wait after the next one; each wait is twice the one before.
        longest_s: No wait is longer.
        forgotten_s: After so long without a failure all are forgotten.
    """

    free: int
    first_s: float = 1.0
    longest_s: float = 900.0
    forgotten_s: float = 86_400.0

    def wait_s(self, failures: int) -> float:
        """The wait after so many failures."""
        beyond = failures - self.free
        pauses = Pauses(first_s=self.first_s, longest_s=self.longest_s)
        return 0.0 if beyond <= 0 else pauses.after(beyond)


def person(tx: Connection, name: str) -> Person | None:
    """One account."""
    columns = tables.person.c
    row = tx.execute(select(tables.person).where(columns.name == name)).one_or_none()
    return None if row is None else _person(row)


def every(tx: Connection) -> list[Person]:
    """All accounts, by name."""
    rows = tx.execute(select(tables.person).order_by(tables.person.c.name))
    return [_person(row) for row in rows]


def _person(row: Row[Any]) -> Person:
    return Person(
        name=row.name,
        role=Role(row.role),
        password_hash=row.password_hash,
        created_at=row.created_at,
        changed_at=row.changed_at,
        issuer=row.issuer,
        subject=row.subject or "",
    )


def add(tx: Connection, name: str, *, role: Role, password_hash: str, at: float) -> bool:
    """Make an account, unless the name is taken."""
    if person(tx, name) is not None:
        return False
    tx.execute(
        tables.person.insert().values(
            name=name, role=role, password_hash=password_hash, created_at=at, changed_at=at
        )
    )
    return True


def admit(tx: Connection, name: str, *, role: Role, issuer: str, subject: str, at: float) -> bool:
    """Take in whom a provider names, with the role that it gives now.

    Who is known keeps the account, and gets a new one where the provider has changed the name.

    Returns:
        Whether the name was to be had: one that is another's, or of an account of the node itself,
        is not.
    """
    other = person(tx, name)
    if other is not None and (other.issuer, other.subject) != (issuer, subject):
        return False
    if other is None:
        dismiss(tx, issuer=issuer, subject=subject)
        tx.execute(
            tables.person.insert().values(
                name=name,
                role=role,
                password_hash="",
                created_at=at,
                changed_at=at,
                issuer=issuer,
                subject=subject,
            )
        )
    elif other.role is not role:
        tx.execute(
            update(tables.person)
            .where(tables.person.c.name == name)
            .values(role=role, changed_at=at)
        )
    return True


def dismiss(tx: Connection, *, issuer: str, subject: str) -> Person | None:
    """Remove whom a provider named, and end the sessions; who it was, if there was somebody."""
    found = named(tx, issuer=issuer, subject=subject)
    if found is not None:
        remove(tx, found.name)
    return found


def named(tx: Connection, *, issuer: str, subject: str) -> Person | None:
    """The account of whom a provider names."""
    columns = tables.person.c
    row = tx.execute(
        select(tables.person).where(columns.issuer == issuer, columns.subject == subject)
    ).one_or_none()
    return None if row is None else _person(row)


def take_once(tx: Connection, digest: str, *, at: float, ends_at: float) -> bool:
    """Whether this answer of a provider was not taken before; those that are over are forgotten.

    Args:
        ends_at: Nobody can give it again after this time.
    """
    columns = tables.answered.c
    tx.execute(tables.answered.delete().where(columns.ends_at <= at))
    if tx.scalar(select(columns.digest).where(columns.digest == digest)) is not None:
        return False
    tx.execute(tables.answered.insert().values(digest=digest, ends_at=ends_at))
    return True


def remove(tx: Connection, name: str) -> bool:
    """Remove an account and end its sessions; whether there was one."""
    end_all(tx, name)
    forget_failures(tx, account_key(name))
    return tx.execute(tables.person.delete().where(tables.person.c.name == name)).rowcount == 1


def set_password(tx: Connection, name: str, *, password_hash: str, at: float) -> bool:
    """Change a password, and end every session that the old one opened.

    Returns:
        Whether there is such an account; whom a provider names has no password.
    """
    known = person(tx, name)
    if known is None or known.issuer:
        return False
    changed = rehash(tx, name, password_hash=password_hash, at=at)
    # Afterwards: whoever signs in at this moment has a session by now, or none at all.
    end_all(tx, name)
    forget_failures(tx, account_key(name))
    return changed


def is_as_it_was(tx: Connection, known: Person) -> bool:
    """Whether an account is still there with the same password, until this transaction ends."""
    columns = tables.person.c
    kept = tx.scalar(
        select(columns.password_hash).where(columns.name == known.name).with_for_update()
    )
    return kept == known.password_hash


def rehash(tx: Connection, name: str, *, password_hash: str, at: float) -> bool:
    """Keep the hash of the same password, made with other costs."""
    changed = tx.execute(
        update(tables.person)
        .where(tables.person.c.name == name)
        .values(password_hash=password_hash, changed_at=at)
    )
    return changed.rowcount == 1


def digest(token: str) -> str:
    """What is kept of a session's token."""
    return hashlib.sha256(token.encode()).hexdigest()


def begin(
    tx: Connection, token: str, *, name: str, address: str, at: float, ends_at: float
) -> None:
    """Open a session; those that are over are forgotten."""
    tx.execute(tables.session.delete().where(tables.session.c.ends_at <= at))
    tx.execute(
        tables.session.insert().values(
            digest=digest(token), person=name, address=address[:64], created_at=at, ends_at=ends_at
        )
    )


def signed_in(tx: Connection, token: str, *, at: float) -> Person | None:
    """Whose session it is; `None` where there is none, or it is over."""
    columns = tables.session.c
    name = tx.scalar(
        select(columns.person).where(columns.digest == digest(token), columns.ends_at > at)
    )
    return None if name is None else person(tx, name)


def end(tx: Connection, token: str) -> None:
    """End a session."""
    tx.execute(tables.session.delete().where(tables.session.c.digest == digest(token)))


def end_all(tx: Connection, name: str) -> None:
    """End every session of somebody."""
    tx.execute(tables.session.delete().where(tables.session.c.person == name))


def last_seen(tx: Connection, *, at: float) -> dict[str, tuple[int, float]]:
    """Name → how many sessions are open, and when the last of them began."""
    columns = tables.session.c
    rows = tx.execute(
        select(columns.person, func.count(), func.max(columns.created_at))
        .where(columns.ends_at > at)
        .group_by(columns.person)
    )
    return {name: (int(count), float(last)) for name, count, last in rows}


def account_key(name: str) -> str:
    """Under what the failures of an account are counted: a digest, for a name may be a password."""
    return f"account:{hashlib.sha256(name.encode()).hexdigest()}"


def address_key(address: str) -> str:
    """Under what the failures of an address are counted.

    Of version 6 it is the network: whoever has one address of it has 2^64 (RFC 4291 2.5.4).
    """
    return f"address:{_network(address)[:64]}"


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


def count_failure(tx: Connection, key: str, *, patience: Patience, at: float) -> float:
    """Count an attempt as failed before it is made: what succeeds is forgotten afterwards.

    Returns:
        How long it has to wait (seconds); it is counted only where that is 0.
    """
    columns = tables.attempt.c
    row = tx.execute(
        select(tables.attempt).where(columns.key == key).with_for_update()
    ).one_or_none()
    if row is None or at - row.last_at > patience.forgotten_s:
        forget_failures(tx, key)
        # Those of names and addresses that never come again as well.
        tx.execute(tables.attempt.delete().where(columns.last_at < at - patience.forgotten_s))
        tx.execute(tables.attempt.insert().values(key=key, failures=1, last_at=at))
        return 0.0
    left = row.last_at + patience.wait_s(row.failures) - at
    if left > 0:
        return float(left)
    tx.execute(
        update(tables.attempt)
        .where(columns.key == key)
        .values(failures=columns.failures + 1, last_at=at)
    )
    return 0.0


def take_back(tx: Connection, key: str) -> None:
    """Count an attempt that was counted as failed as none: it succeeded."""
    columns = tables.attempt.c
    tx.execute(
        update(tables.attempt)
        .where(columns.key == key, columns.failures > 0)
        .values(failures=columns.failures - 1)
    )


def forget_failures(tx: Connection, *keys: str) -> None:
    """Begin anew."""
    tx.execute(tables.attempt.delete().where(tables.attempt.c.key.in_(keys)))
