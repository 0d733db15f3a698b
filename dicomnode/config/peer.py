"""A peer of the configuration: where it is, how it is called, and what it is sent."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from dicomnode import profile as profiles
from dicomnode.config.table import Table
from dicomnode.config.values import AETitle, AETitles, Count, Host, Hosts, Port, TlsName


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where an application entity is called.

    Attributes:
        tls: Whether it is called with TLS.
        tls_name: The name that its certificate must bear; "" where any will do.
    """

    ae_title: str
    host: str
    port: int
    tls: bool
    tls_name: str


class Endpoint(Table):
    """Where a peer answers for one service, as far as that is not where the peer itself is."""

    ae_title: AETitle | None = None
    """AE title to call; left out, that of the peer."""
    host: Host | None = None
    """Name or address; left out, that of the peer."""
    port: Port | None = None
    """TCP port; left out, that of the peer."""


class Results(Table):
    """What a peer is sent of an answer, as far as its profile does not say it already."""

    segmentation: profiles.Segmentation | None = None
    """How masks are encoded: binary, labelmap, fractional, or none. Masks that overlap are binary
    where labelmap is asked for; probability maps are segmentations only where fractional is."""
    maps: bool | None = None
    """Whether heat maps and probability maps are sent as parametric maps."""
    images: bool | None = None
    """Whether images that a model made of the images are sent."""
    registrations: bool | None = None
    """Whether registrations are sent."""
    capture: bool | None = None
    """Whether a picture for people is sent, as a secondary capture."""
    regions: bool | None = None
    """Whether a report is sent that viewers draw contours, boxes and points from."""
    coordinates: profiles.Coordinates | None = None
    """Where those lie: on the image (SCOORD), or in the patient (SCOORD3D)."""
    presentation: bool | None = None
    """Whether presentation states are sent that draw the same."""
    key_images: bool | None = None
    """Whether a selection of the key images is sent."""
    report: bool | None = None
    """Whether the report of everything that was found is sent."""
    title: profiles.Title | None = None
    """Title of that report: imaging or oncology (measurement report); viewers choose by it how they
    show it."""
    not_analysed: bool | None = None
    """Whether a short report is sent for a study that was routed and not analysed, to say why."""
    workarounds: profiles.Workarounds | None = None
    """Whose faults are worked around: none, or ohif (3.13), which would show some segmentations and
    regions otherwise than they are. What cannot be helped is left out for it."""
    superseded: profiles.Superseded | None = None
    """What becomes of an answer that a newer one takes the place of: keep (the newer one names it),
    or reject (the peer is also sent a key object selection that rejects it, IHE IOCM)."""


class Peer(Table):
    """Another application entity: it sends to the node, gets its results, or both."""

    ae_titles: Annotated[AETitles, Field(alias="ae_title")]
    """AE title of the peer, or a list of those that it sends under; the first is called."""
    hosts: Annotated[Hosts, Field(alias="host")]
    """Its name or address, or a list of those that it sends from; the first is called."""
    port: Port | None = None
    """Its TCP port; needed to send results there."""
    tls: bool = False
    """Whether the node calls it with TLS, by the files of [tls]."""
    tls_name: TlsName | None = None
    """Name that its certificate must bear; left out, the host that is called. "" takes every
    certificate that `tls.ca` has signed."""
    confirm: Literal["find", "commitment", "none"] = "find"
    """How a delivery is confirmed: by asking for the objects with C-FIND, by Storage Commitment,
    or not at all."""
    max_associations: Count | None = None
    """Number of associations that it may have open at once; left out,
    `listen.max_associations_per_peer`."""
    query: Endpoint | None = None
    """Where it answers C-FIND, as far as that is elsewhere."""
    profile: profiles.Name = "standard"
    """What it is sent of an answer, by a name: standard, ohif, weasis, slicer or captures-only."""
    results: Results | None = None
    """The same key by key, where the profile chooses otherwise."""
    commitment: Endpoint | None = None
    """Where it answers and hears of Storage Commitment, as far as that is elsewhere. It may also
    associate with the node from there, under that AE title, to answer."""

    @property
    def gets(self) -> profiles.Profile:
        """What it is sent of an answer."""
        named = profiles.NAMED[self.profile]
        return named.with_choices(self.results.model_dump()) if self.results else named

    @property
    def ae_title(self) -> str:
        """The AE title to call."""
        return self.ae_titles[0]

    @property
    def host(self) -> str:
        """The name or address to call."""
        return self.hosts[0]

    @property
    def origins(self) -> tuple[tuple[str, str], ...]:
        """AE title and host of each place that it associates with the node from."""
        return (
            *itertools.product(self.ae_titles, self.hosts),
            *([self._identity_of(self.commitment)] if self.commitment else []),
        )

    def _identity_of(self, endpoint: Endpoint) -> tuple[str, str]:
        return endpoint.ae_title or self.ae_title, endpoint.host or self.host

    @property
    def storage_at(self) -> Address | None:
        """Where objects are sent; `None` where the peer gives no port."""
        return self._at(None)

    @property
    def query_at(self) -> Address | None:
        """Where C-FIND is sent; `None` where neither `query` nor the peer gives a port."""
        return self._at(self.query)

    @property
    def commitment_at(self) -> Address | None:
        """Where N-ACTION and N-EVENT-REPORT are sent; `None` as with `query_at`."""
        return self._at(self.commitment)

    def _at(self, endpoint: Endpoint | None) -> Address | None:
        given = endpoint or Endpoint()
        ae_title, host = self._identity_of(given)
        port = given.port or self.port
        if port is None:
            return None
        return Address(
            ae_title=ae_title,
            host=host,
            port=port,
            tls=self.tls,
            tls_name=host if self.tls_name is None else self.tls_name,
        )
