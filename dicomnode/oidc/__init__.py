"""Sign-in by OpenID Connect (Core 1.0, authorization code flow with PKCE): the relying party.

`flow` is one sign-in as this browser began it, `provider` asks the provider, `token` judges what it
says, `entry` makes a person with a role of it. Nothing here knows of pages or of the database.
JOSE is left to joserfc, which knows nothing but JOSE and wants to be told which algorithms are
meant; HTTP to httpx2.
"""

from dicomnode.oidc.entry import Identity, role
from dicomnode.oidc.flow import Flow
from dicomnode.oidc.provider import Provider
from dicomnode.oidc.refusal import SignInRefused

__all__ = ["Flow", "Identity", "Provider", "SignInRefused", "role"]
