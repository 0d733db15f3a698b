"""Who it is that reports: what every message says of the node itself."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dicomnode import NAME
from dicomnode.auditing.codes import Code, Kind
from dicomnode.auditing.message import Participant, Source

#: Under what a connection to the database carries its recorder.
OPTION = "dicomnode_recorder"


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """The node, as its messages name it.

    Attributes:
        host: The name of its machine: the same in every message (PS3.15 A.5.2.4).
        left_out: Kinds of messages that are not sent.
    """

    source: Source
    ae_title: str
    host: str
    left_out: frozenset[Kind] = frozenset()

    def tells(self, kind: Kind) -> bool:
        """Whether messages of a kind are sent."""
        return kind not in self.left_out

    def process(self, *roles: Code, is_requestor: bool) -> Participant:
        """The process of the node that asks, by the number that its log has as well."""
        return Participant(
            user_id=str(os.getpid()),
            ae_title=self.ae_title,
            user_name=NAME,
            is_requestor=is_requestor,
            roles=roles,
            address=self.host,
        )

    def person(
        self, name: str, *roles: Code, address: str, is_requestor: bool = True
    ) -> Participant:
        """Somebody who has an account here, or claims to; "" for nobody that is known."""
        return Participant(
            user_id=f"{name}@{self.host}" if name else "unknown",
            user_name=name,
            is_requestor=is_requestor,
            roles=roles,
            address=address,
        )
