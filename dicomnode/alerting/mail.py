"""Messages by e-mail: SMTP submission (RFC 6409), with STARTTLS (RFC 3207) or TLS (RFC 8314).

What is asked for is done or refused: a server that offers no STARTTLS gets no message and no
password. Whatever a server does, it is left after `TIMEOUT_S`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPException,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)

from dicomnode import config
from dicomnode.alerting import secure
from dicomnode.alerting.letter import Letter
from dicomnode.config import Email
from dicomnode.errors import NodeError, RetryLater

TIMEOUT_S = 30.0
_GOOD_BYE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Mailer:
    """Sends letters through one mail server."""

    table: Email
    timeout_s: float = TIMEOUT_S

    async def send(self, letter: Letter) -> str:
        """Send to every recipient that the server knows.

        Returns:
            What is not as it should be although somebody was told, as a sentence.

        Raises:
            RetryLater: The server did not take it; the reason says at which step.
        """
        async with self._signed_in() as server:
            refused, _ = await server.send_message(message(letter, self.table))
        if not refused:
            return ""
        return f"The mail server refused {len(refused)} of {len(self.table.to)} recipients."

    async def ask(self) -> None:
        """Do everything but send: EHLO, STARTTLS, AUTH.

        Raises:
            RetryLater: As `send`.
        """
        async with self._signed_in() as server:
            await server.noop()

    @asynccontextmanager
    async def _signed_in(self) -> AsyncIterator[SMTP]:
        table = self.table
        server = SMTP(
            hostname=table.host,
            port=table.port_to_call,
            use_tls=table.security == "tls",
            start_tls=False,  # it is asked for below, and nothing goes on without it
            tls_context=_context(table),
            # Not looked up: a name server that hangs would be one more that does.
            local_hostname=socket.gethostname(),
            timeout=self.timeout_s,
        )
        try:
            async with asyncio.timeout(self.timeout_s):
                plain: asyncio.BaseTransport | None = None
                try:
                    await server.connect()
                    plain = server.transport
                    await server.ehlo()
                    if table.security == "starttls":
                        offered = server.supports_extension("starttls")
                        _require(offered=offered, what="STARTTLS", table=table)
                        await server.starttls()
                        await server.ehlo()
                    if table.user is not None:
                        offered = bool(server.supported_auth_methods)
                        _require(offered=offered, what="AUTH", table=table)
                        await server.login(table.user, _password(table))
                    yield server
                    # What it has taken it has taken, whether or not it says good-bye.
                    with suppress(SMTPException, OSError):
                        await server.quit(timeout=_GOOD_BYE_S)
                finally:
                    _hang_up(server.transport, plain)
                    server.close()
        except NodeError:
            raise
        except (SMTPException, OSError, TimeoutError, ValueError) as error:
            raise _translated(error, table) from error


def _hang_up(*transports: asyncio.BaseTransport | None) -> None:
    """Close at once: TLS would wait for the other side's good-bye, and the loop ends here."""
    for transport in transports:
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()


def _require(*, offered: bool, what: str, table: Email) -> None:
    if not offered:
        raise RetryLater(
            "mail-not-supported",
            f"{table.host}:{table.port_to_call} offers no {what}, which is asked for.",
        )


def _context(table: Email) -> ssl.SSLContext | None:
    if table.security == "none":
        return None
    return secure.context(table.ca, key="alerts.email.ca")


def _password(table: Email) -> str:
    if table.password_file is None:
        return ""
    try:
        return config.secret(table.password_file)
    except ValueError as error:
        raise RetryLater("mail-password-unreadable", str(error)) from error


def _translated(error: Exception, table: Email) -> RetryLater:
    """What went wrong, in a word and a sentence; what the server said may name its users."""
    where = f"{table.host}:{table.port_to_call}"
    if secure.is_at_fault(error):
        sentence = "its certificate is not trusted, or it speaks no TLS"
        return RetryLater("mail-tls-failed", f"{where}: {sentence}.")
    for kind, reason, sentence in _FAULTS:
        if isinstance(error, kind):
            code = (
                f" (it answered {error.code})" if isinstance(error, SMTPResponseException) else ""
            )
            return RetryLater(reason, f"{where}: {sentence}{code}.")
    return RetryLater("mail-failed", f"{where}: {type(error).__name__}.")


# The first that fits.
_FAULTS: tuple[tuple[type[Exception], str, str], ...] = (
    (SMTPAuthenticationError, "mail-sign-in-refused", "it does not take this user and password"),
    (SMTPRecipientsRefused, "mail-recipient-refused", "it takes no message for any recipient"),
    (SMTPTimeoutError, "mail-timeout", "it does not answer in time"),
    (TimeoutError, "mail-timeout", "it does not answer in time"),
    (SMTPServerDisconnected, "mail-broken-off", "it closed the connection"),
    (SMTPConnectError, "mail-unreachable", "it is not to be reached"),
    (SMTPResponseException, "mail-refused", "it refused the message"),
    (OSError, "mail-unreachable", "it is not to be reached"),
)


def message(letter: Letter, table: Email) -> EmailMessage:
    """The letter as an e-mail. Those about one alert are one conversation (RFC 5322 3.6.4)."""
    domain = table.sender.rpartition("@")[2]
    made = EmailMessage(policy=SMTP_POLICY)
    made["From"] = table.sender
    made["To"] = ", ".join(table.to)
    made["Subject"] = letter.subject
    made["Date"] = format_datetime(letter.written_at)
    made["Message-ID"] = f"<{letter.id}@{domain}>"
    if letter.thread != letter.id:
        made["In-Reply-To"] = made["References"] = f"<{letter.thread}@{domain}>"
    made["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday answers it
    made.set_content(letter.wording.text)
    return made
