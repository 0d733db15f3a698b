"""The OpenID Connect provider of the configuration in force."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from dicomnode.oidc import Provider
from dicomnode.web import surroundings


def of(connection: HTTPConnection) -> Provider | None:
    """The provider; `None` where nobody signs in that way."""
    configuration = surroundings.of(connection).configuration
    settings, public_url = configuration.oidc, configuration.web.public_url
    if settings.issuer is None or public_url is None:
        return None
    kept: Provider | None = getattr(connection.app.state, "provider", None)
    if kept is None or (kept.settings, kept.public_url) != (settings, public_url):
        kept = connection.app.state.provider = Provider(settings, public_url=public_url)
    return kept
