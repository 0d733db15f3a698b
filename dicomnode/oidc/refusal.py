"""Why somebody is not let in."""

from __future__ import annotations

from dicomnode.errors import Failed


class SignInRefused(Failed):
    """Somebody is not let in: the reason is for the audit trail, the detail for who tried.

    Attributes:
        name: Who it was, as far as the provider's word could be believed; "" otherwise.
    """

    def __init__(self, reason: str, detail: str, *, name: str = "") -> None:
        super().__init__(reason, detail)
        self.name = name
