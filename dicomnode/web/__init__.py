"""The administrator's page: what the node does, seen and steered from a browser.

It is served in threads of the node's process and works without internet and without scripts; with
them it is live. Everything but `/healthz`, `/readyz`, `/metrics`, the sign-in and the static files
needs a session (`security`). What a page shows is asked of `archive`; nothing is kept here.
"""

from dicomnode.web.server import Page

__all__ = ["Page"]
