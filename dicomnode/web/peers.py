"""The peers: who was seen when, what waits for whom, and whether they answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dicomnode.archive import journal
from dicomnode.archive.access.audit import Action, Result
from dicomnode.archive.asked import contacts, figures
from dicomnode.archive.asked.contacts import Contact, Trouble
from dicomnode.config import Peer
from dicomnode.errors import NodeError
from dicomnode.job import DeliveryState
from dicomnode.network import tls
from dicomnode.network.calling import sender
from dicomnode.network.calling.request import Destination
from dicomnode.web import security, surroundings
from dicomnode.web.security import ActOfOperator, Viewer
from dicomnode.web.shown import shown
from dicomnode.web.surroundings import Surroundings

router = APIRouter()

_DAY_S = 86_400.0
_REFUSALS = 20
_ECHO_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One peer.

    Attributes:
        deliveries: State → how many; empty for one that gets nothing.
        trouble: What is wrong with the delivery that has waited or failed last.
    """

    name: str
    peer: Peer
    contact: Contact
    deliveries: dict[str, int] = field(default_factory=dict)
    trouble: Trouble | None = None

    @property
    def waiting(self) -> int:
        """How many deliveries are on their way there."""
        return self.deliveries.get(DeliveryState.PENDING, 0) + self.deliveries.get(
            DeliveryState.SENDING, 0
        )


@dataclass(frozen=True, kw_only=True)
class Echo:
    """How a peer answered."""

    peer: str
    answered: bool
    detail: str


@router.get("/peers")
def peers(request: Request, _visitor: Viewer) -> Response:
    """The page."""
    return shown(request, "peers.html", echo=None, **_values(surroundings.of(request)))


@router.get("/peers-table")
def peers_table(request: Request, _visitor: Viewer) -> Response:
    """The table alone."""
    return shown(request, "peers_table.html", **_values(surroundings.of(request)))


@router.post("/peers/{name}/echo")
def echo(request: Request, name: str, act: ActOfOperator) -> Response:
    """Ask a peer now whether it answers (C-ECHO)."""
    here = surroundings.of(request)
    peer = here.configuration.peers.get(name)
    if peer is None or peer.storage_at is None:
        raise HTTPException(404)
    answer = _ask(here, name, peer)
    security.note(
        here,
        act.visitor,
        Action.ECHO,
        subject=name,
        outcome=Result.DONE if answer.answered else Result.FAILED,
        detail=answer.detail,
    )
    return shown(request, "peers.html", echo=answer, **_values(here))


def _ask(here: Surroundings, name: str, peer: Peer) -> Echo:
    configuration = here.configuration
    began = here.clock()
    try:
        assert peer.storage_at is not None  # noqa: S101 - asked before
        certificates = tls.for_calling(configuration.tls, configuration.peers.values())
        to = Destination.at(peer.storage_at, certificates=certificates)
        sender.echo(to, calling_ae_title=configuration.node.ae_title, timeout_s=_ECHO_S)
    except NodeError as error:
        return Echo(peer=name, answered=False, detail=error.detail)
    return Echo(
        peer=name, answered=True, detail=f"in {max(0.0, here.clock() - began) * 1000:.0f} ms"
    )


def _values(here: Surroundings) -> dict[str, Any]:
    now = here.clock()
    with here.database.read() as tx:
        seen = contacts.seen(tx, since=now - _DAY_S)
        sent = figures.deliveries(tx)
        rows = [
            Row(
                name=name,
                peer=peer,
                contact=seen.get(name, Contact()),
                deliveries={state: n for (to, state), n in sent.items() if to == name},
                trouble=contacts.trouble(tx, name) if peer.port is not None else None,
            )
            for name, peer in here.configuration.peers.items()
        ]
        refused = journal.refusals(tx, limit=_REFUSALS)
    return {"rows": rows, "unknown": seen.get(""), "refused": refused}
