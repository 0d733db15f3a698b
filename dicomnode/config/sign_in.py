"""Faults of sense in [oidc]: what a sign-in needs beside the provider's address."""

from __future__ import annotations

from collections.abc import Iterator

from dicomnode.config.problem import Problem, key_path
from dicomnode.config.raw import Tables, table

# What means nothing without a provider.
_OF_A_PROVIDER = ("client_id", "client_secret_file", "ca", "roles")
_NEEDED = (("oidc", "client_id"), ("oidc", "roles"), ("web", "port"), ("web", "public_url"))


def problems(raw: Tables) -> Iterator[Problem]:
    """Every fault of sense in [oidc] as it is written."""
    oidc = table(raw, "oidc")
    if "issuer" not in oidc:
        for key in (key for key in _OF_A_PROVIDER if key in oidc):
            message = "Needs oidc.issuer beside it."
            yield Problem.error(key_path("oidc", key), message, "oidc-incomplete")
        return
    missing = [key_path(*keys) for keys in _NEEDED if keys[1] not in table(raw, keys[0])]
    if missing:
        message = f"Needs {' and '.join(missing)} beside it."
        yield Problem.error(key_path("oidc", "issuer"), message, "oidc-incomplete")
    if oidc.get("roles") == {}:
        message = 'Nobody would be let in. Write group = "viewer", for instance.'
        yield Problem.error(key_path("oidc", "roles"), message, "no-role-for-anybody")
