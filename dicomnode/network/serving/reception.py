"""What one association brings, told in order: opened, stored and turned away, ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dicomnode import log
from dicomnode.archive.arrival import Arrival, End, Ended, Opened, Stored, TurnedAway
from dicomnode.archive.disk.files import StoredFile
from dicomnode.errors import Refused
from dicomnode.network.commitment.service import Report
from dicomnode.network.serving.storage import Incoming, Shelf, StoreRequest

_log = log.get(__name__)


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What all associations of a receiver share.

    Attributes:
        shelf: Where instances go.
        report: Told of each fact before the peer is answered. What it does not take is not
            acknowledged.
        clock: Seconds since the epoch.
        new_association_id: Gives an identifier that is unique for ever.
    """

    shelf: Shelf
    report: Callable[[Arrival], None]
    clock: Callable[[], float]
    new_association_id: Callable[[], str]

    def turn_away(
        self,
        refusal: Refused,
        *,
        association: str = "",
        peer: str = "",
        sop_instance_uid: str = "",
        study_instance_uid: str = "",
        calling_ae_title: str = "",
        address: str = "",
    ) -> None:
        """Say that an association, or an instance, was refused, and why."""
        self.report(
            TurnedAway(
                association=association,
                peer=peer,
                reason=refusal.reason,
                detail=refusal.detail,
                status=refusal.status,
                sop_instance_uid=sop_instance_uid,
                study_instance_uid=study_instance_uid,
                at=self.clock(),
                calling_ae_title=calling_ae_title,
                address=address,
            )
        )
        _log.warning(
            "turned away",
            association=association,
            peer=peer,
            reason=refusal.reason,
            detail=refusal.detail,
        )


@dataclass(kw_only=True)
class Reception:
    """One association that was admitted. Its own thread uses it.

    Attributes:
        peer: The name in the configuration, or "" for an unknown peer.
        reports: What a service has to say on this association once its answer is out.
    """

    desk: Desk
    peer: str
    association: str = field(init=False)
    stored: int = 0
    refused: int = 0
    is_open: bool = False
    reports: list[Callable[[], Report]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Give it its identifier."""
        self.association = self.desk.new_association_id()

    def opened(self, *, calling_ae_title: str, address: str) -> None:
        """The A-ASSOCIATE-AC is out."""
        self.is_open = True
        self.desk.report(
            Opened(
                association=self.association,
                peer=self.peer,
                calling_ae_title=calling_ae_title,
                address=address,
                at=self.desk.clock(),
            )
        )

    def begin(self, request: StoreRequest) -> Incoming:
        """A C-STORE-RQ has come; its data set follows."""
        return Incoming(request, self.desk.shelf)

    def finish(self, request: StoreRequest, incoming: Incoming) -> Refused | None:
        """The data set of a C-STORE-RQ is whole: keep it.

        Returns:
            Why it was refused, or `None` where it is safe and success may be answered.
        """
        refusal = incoming.finish(self._keep)
        if refusal is None:
            self.stored += 1
            return None
        self.refused += 1
        self.desk.turn_away(
            refusal,
            association=self.association,
            peer=self.peer,
            sop_instance_uid=request.sop_instance_uid,
            study_instance_uid=incoming.study_instance_uid,
        )
        return refusal

    def _keep(self, stored: StoredFile) -> None:
        self.desk.report(
            Stored(
                association=self.association,
                path=stored.path,
                at=self.desk.clock(),
                repeated=not stored.is_new,
            )
        )

    def ended(self, end: End) -> None:
        """Nothing more comes from it, if ever something could."""
        if not self.is_open:
            return
        self.desk.report(
            Ended(
                association=self.association,
                end=end,
                stored=self.stored,
                refused=self.refused,
                at=self.desk.clock(),
            )
        )
