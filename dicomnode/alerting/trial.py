"""One message by every channel, to see whether it arrives."""

from __future__ import annotations

import asyncio
from typing import Any

from dicomnode.alert import Channel
from dicomnode.alerting import letter
from dicomnode.alerting.letter import Letter
from dicomnode.alerting.postman import Sender, senders
from dicomnode.config import Configuration
from dicomnode.errors import NodeError


async def run(configuration: Configuration, *, at: float) -> dict[str, Any]:
    """Send a test by each channel at once; returns what came of each, as a document.

    Args:
        configuration: Whose channels are tried.
        at: Seconds since the epoch.
    """
    said = letter.of_test(configuration, at=at)
    tried = [
        _tried(channel, sender, said) for channel, sender in senders(configuration.alerts).items()
    ]
    return {"message": said.id, "channels": list(await asyncio.gather(*tried))}


async def _tried(channel: Channel, sender: Sender, said: Letter) -> dict[str, Any]:
    document = {"channel": str(channel), "sent": True, "reason": "", "detail": ""}
    try:
        document["detail"] = await sender.send(said)
    except NodeError as error:
        document |= {"sent": False, "reason": error.reason, "detail": error.detail}
    return document
