"""Messages in the database → letters on their way, each channel by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from dicomnode import log
from dicomnode.alert import Channel
from dicomnode.alerting import letter
from dicomnode.alerting.letter import Letter
from dicomnode.alerting.mail import Mailer
from dicomnode.alerting.webhook import Poster
from dicomnode.archive.alerts import messages
from dicomnode.archive.alerts.messages import Message
from dicomnode.archive.database import Database
from dicomnode.config import Alerts, Configuration
from dicomnode.errors import NodeError, RetryLater
from dicomnode.pauses import Pauses

_log = log.get(__name__)

# How long a channel is left alone that carries nothing.
_PAUSES = Pauses(first_s=15.0, longest_s=1800.0)
# Longer than any attempt takes: who has not said by then what became of it has died.
_LEASE_S = 120.0


class Sender(Protocol):
    """What carries letters."""

    async def send(self, letter: Letter) -> str:
        """Carry one.

        Returns:
            What is not as it should be although it arrived, as a sentence; "" where all is well.

        Raises:
            RetryLater: It did not arrive.
        """


def senders(alerts: Alerts) -> dict[Channel, Sender]:
    """What carries letters, for each channel of the configuration."""
    found: dict[Channel, Sender] = {}
    if alerts.email is not None:
        found[Channel.EMAIL] = Mailer(table=alerts.email)
    if alerts.webhook is not None:
        found[Channel.WEBHOOK] = Poster(table=alerts.webhook)
    return found


class Postman:
    """Sends what waits. Of the nodes that share a database, each message is sent by one."""

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def send_one(self, channel: Channel, configuration: Configuration) -> None:
        """Send one message of a channel, if it has one to send now.

        It is the edge of a channel, too: its faults must not silence the others.
        """
        sender = senders(configuration.alerts).get(channel)
        if sender is None:
            return
        try:
            await self._send_one(channel, sender, configuration)
        except NodeError as error:
            _log.warning(
                "alert messages wait",
                channel=str(channel),
                reason=error.reason,
                detail=error.detail,
            )
        except Exception:  # noqa: BLE001 - see above
            _log.exception("alert messages failed", channel=str(channel))

    async def _send_one(
        self, channel: Channel, sender: Sender, configuration: Configuration
    ) -> None:
        message = await asyncio.to_thread(self._claim, channel)
        if message is None:
            return
        try:
            amiss = await sender.send(letter.of(message, configuration))
        except NodeError as error:
            await asyncio.to_thread(self._put_off, message, error)
        except asyncio.CancelledError:
            self._give_back(message)
            raise
        except Exception as error:  # noqa: BLE001 - it is put off like any other
            _log.exception("alert not sent, unexpectedly", channel=str(channel))
            unknown = RetryLater("unexpected-error", f"{type(error).__name__}; see the log.")
            await asyncio.to_thread(self._put_off, message, unknown)
        else:
            await asyncio.to_thread(self._sent, message, amiss)

    def _claim(self, channel: Channel) -> Message | None:
        now = self._clock()
        with self._database.read() as tx:
            if not messages.anything_due(tx, channel, at=now):
                return None
        with self._database.write() as tx:
            return messages.claim(tx, channel, at=now, lease_s=_LEASE_S)

    def _sent(self, message: Message, amiss: str) -> None:
        with self._database.write() as tx:
            messages.sent(tx, message, at=self._clock(), amiss=amiss)
        tell = _log.warning if amiss else _log.info
        tell(
            "alert sent",
            detail=amiss,
            channel=str(message.channel),
            alert=str(message.kind),
            state=str(message.occasion),
        )

    def _put_off(self, message: Message, error: NodeError) -> None:
        pause_s = _PAUSES.after(message.attempts + 1)
        with self._database.write() as tx:
            messages.put_off(
                tx,
                message,
                not_before=self._clock() + pause_s,
                reason=error.reason,
                detail=error.detail,
            )
        _log.error(
            "alert not sent",
            channel=str(message.channel),
            alert=str(message.kind),
            reason=error.reason,
            detail=error.detail,
            attempts=message.attempts + 1,
            delay_s=pause_s,
        )

    def _give_back(self, message: Message) -> None:
        """Let the next start send what this one was just sending; it may arrive twice."""
        with self._database.write() as tx:
            messages.release(tx, message)
