"""A small PACS for the demo: it keeps what it is sent, and answers for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom import sop_class as sop

# PS3.4 B.2.3 and C.4.1.1.4.
_SUCCESS, _PENDING = 0x0000, 0xFF00
_HOST = "127.0.0.1"


@contextmanager
def running(folder: Path, *, ae_title: str) -> Iterator[int]:
    """A PACS on loopback that keeps its objects in `folder`; gives its port."""

    def store(event: evt.Event) -> int:
        request: Any = event.request
        (folder / f"{request.AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
        return _SUCCESS

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        wanted = event.identifier.get("SOPInstanceUID", "")
        for uid in [wanted] if isinstance(wanted, str) else list(wanted):
            if (folder / f"{uid}.dcm").is_file():
                yield _PENDING, _answer(uid)

    ae = AE(ae_title)
    ae.supported_contexts = AllStoragePresentationContexts
    ae.add_supported_context(sop.Verification)  # type: ignore[attr-defined] # made at import
    ae.add_supported_context(sop.StudyRootQueryRetrieveInformationModelFind)  # type: ignore[attr-defined] # as above
    handlers: list[Any] = [(evt.EVT_C_STORE, store), (evt.EVT_C_FIND, find)]
    server: Any = ae.start_server((_HOST, 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def _answer(sop_instance_uid: str) -> Dataset:
    answer = Dataset()
    answer.QueryRetrieveLevel = "IMAGE"
    answer.SOPInstanceUID = sop_instance_uid
    return answer
