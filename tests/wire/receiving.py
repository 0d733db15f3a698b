"""What the tests of the wire share: a receiver that remembers, and small objects to send."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.association import Association

from dicomnode.archive.arrival import Arrival, Ended, Opened, Stored, TurnedAway
from dicomnode.archive.disk import header
from dicomnode.archive.disk.files import FileStore
from dicomnode.network.commitment.service import Commitment
from dicomnode.network.serving import listener
from dicomnode.network.serving.acceptor import Acceptor
from dicomnode.network.serving.listener import Sockets
from dicomnode.network.serving.places import Limits
from dicomnode.network.serving.storage import Gate
from dicomnode.network.tls import Certificates

NODE = "NODE"
HOST = "127.0.0.1"
READY_WITHIN_S = 30


@dataclass(frozen=True, kw_only=True)
class Listen:
    host: str = HOST
    port: int = 0
    reactor: Literal["streaming", "stock"] = "streaming"
    accept_unknown_peers: bool = False
    max_pdu_kib: int = 128
    max_instance_gib: float = 1.0
    idle_s: float = 300.0
    max_associations: int = 100
    max_associations_per_peer: int = 100


@dataclass(frozen=True, kw_only=True)
class Peer:
    ae_title: str
    host: str = HOST
    other_titles: tuple[str, ...] = ()
    other_hosts: tuple[str, ...] = ()
    max_associations: int | None = None

    @property
    def origins(self) -> tuple[tuple[str, str], ...]:
        titles, hosts = (self.ae_title, *self.other_titles), (self.host, *self.other_hosts)
        return tuple(itertools.product(titles, hosts))


class LocalPlaces:
    """Places of a receiver that is one process."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, peer: str) -> None:
        with self._lock:
            self._limits.require_place(
                peer, held=self._taken.total(), held_by_peer=self._taken[peer]
            )
            self._taken[peer] += 1

    def give_back(self, peer: str) -> None:
        with self._lock:
            self._taken[peer] -= 1


class Receiver:
    """An acceptor, and everything that it reported."""

    def __init__(
        self,
        data_dir: Path,
        *,
        listen: Listen,
        peers: Mapping[str, Peer],
        certificates: Certificates | None = None,
        gate: Gate | None = None,
        commitment: Commitment | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.facts: list[Arrival] = []
        self.changed = threading.Condition()
        self.store = FileStore(data_dir)
        plain = listener.bind(listen.host, listen.port)
        secure = listener.bind(listen.host, 0) if certificates is not None else None
        self.port: int = plain.getsockname()[1]
        self.secure_port: int | None = secure.getsockname()[1] if secure is not None else None
        clock = itertools.count()
        self.acceptor = Acceptor(
            listen=listen,
            node_ae_title=NODE,
            peers=peers,
            store=self.store,
            report=self.report,
            clock=lambda: float(next(clock)),
            places=LocalPlaces(_limits(listen, peers)),
            sockets=Sockets(plain=plain, secure=secure),
            certificates=certificates,
            gate=gate,
            commitment=commitment,
        )

    def report(self, fact: Arrival) -> None:
        with self.changed:
            self.facts.append(fact)
            self.changed.notify_all()

    def wait_for(self, kind: type[Arrival], *, count: int = 1) -> list[Arrival]:
        """The facts of a kind, once there are `count` of them."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.of(kind)) >= count, READY_WITHIN_S)
            return self.of(kind)

    def of(self, kind: type[Arrival]) -> list[Arrival]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def ended(self, *, count: int = 1) -> Ended:
        """How the last of `count` associations ended."""
        last = self.wait_for(Ended, count=count)[-1]
        assert isinstance(last, Ended)
        return last

    @property
    def opened(self) -> Opened:
        last = self.of(Opened)[-1]
        assert isinstance(last, Opened)
        return last

    @property
    def stored(self) -> list[str]:
        """The paths of what was new."""
        return [fact.path for fact in self.facts if isinstance(fact, Stored) and not fact.repeated]

    @property
    def turned_away(self) -> TurnedAway:
        last = self.of(TurnedAway)[-1]
        assert isinstance(last, TurnedAway)
        return last

    @property
    def on_disk(self) -> list[str]:
        return list(self.store.walk())

    @property
    def leftovers(self) -> list[Path]:
        return list((self.data_dir / "incoming").iterdir())


def _limits(listen: Listen, peers: Mapping[str, Peer]) -> Limits:
    own = {name: peer.max_associations for name, peer in peers.items()}
    return Limits(
        total=listen.max_associations,
        per_peer=listen.max_associations_per_peer,
        of_peer={name: limit for name, limit in own.items() if limit is not None},
    )


Start = Callable[..., Receiver]
Associate = Callable[..., Association]

# SOP class and transfer syntax of what `instance` and `write` make.
KIND = (str(CTImageStorage), str(ExplicitVRLittleEndian))


def instance(number: int = 1, *, comment: str = "", pixels: int = 64) -> Dataset:
    """A small CT image. The same arguments give the same object."""
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = f"1.2.3.4.{number}"
    ds.Modality = "CT"
    ds.PatientName = "Phantom^Asymmetric"
    ds.PatientID = "P1"
    ds.StudyInstanceUID = "1.2.3.1"
    ds.SeriesInstanceUID = "1.2.3.2"
    ds.InstanceNumber = number
    ds.ImageComments = comment
    ds.Rows = ds.Columns = pixels
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.SamplesPerPixel = 1
    ds.PixelRepresentation = 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.PixelData = bytes(range(256)) * (pixels * pixels // 128)
    return ds


def write(path: Path, ds: Dataset, *, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> Path:
    """A DICOM file of `ds`, which need not be a valid one."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID") or CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID") or "1.2.3.4.0"
    ds.file_meta.TransferSyntaxUID = transfer_syntax_uid
    dcmwrite(path, ds, enforce_file_format=True)
    return path


def dataset_bytes(path: Path) -> bytes:
    """The encoded data set of a DICOM file."""
    content = path.read_bytes()
    return content[header.read_meta(BytesIO(content)).offset :]
