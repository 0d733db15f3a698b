"""What `check` finds in [oidc]: of sense, of the place, and of the provider itself."""

from __future__ import annotations

from pathlib import Path

import paged
import provider as providers
import pytest
import servers
from certificates import Authority

from dicomnode import check

WEB = 'port = 8080\npublic_url = "https://node.example"'
NO_SECRET = '\nclient_secret_file = "no"'
OIDC = 'issuer = "https://login.example"\nclient_id = "dicomnode"\nroles = { a = "viewer" }'


def found(folder: Path, *, web: str = WEB, oidc: str = OIDC, live: bool = False) -> dict[str, str]:
    """Key path → code of each problem of the two tables."""
    file = folder / "node.toml"
    text = paged.CONFIGURATION.replace("[web]\nport = 0\n", f"[web]\n{web}\n[oidc]\n{oidc}\n")
    file.write_text(text)
    problems = check.run(file, {}, live=live)
    return {one.path: one.code for one in problems if one.path.startswith(("oidc", "web.public"))}


def test_a_sign_in_that_is_whole_has_no_problem(tmp_path: Path) -> None:
    assert found(tmp_path) == {}
    assert found(tmp_path, web="", oidc="") == {}


@pytest.mark.parametrize(
    ("web", "oidc", "problems"),
    [
        (WEB, 'client_id = "x"', {"oidc.client_id": "oidc-incomplete"}),
        (WEB, 'roles = { a = "viewer" }', {"oidc.roles": "oidc-incomplete"}),
        (WEB, 'issuer = "https://x.example"', {"oidc.issuer": "oidc-incomplete"}),
        ("port = 8080", OIDC, {"oidc.issuer": "oidc-incomplete"}),
        ('public_url = "https://x.example"', OIDC, {"oidc.issuer": "oidc-incomplete"}),
        (WEB, OIDC.replace('{ a = "viewer" }', "{}"), {"oidc.roles": "no-role-for-anybody"}),
        (WEB, OIDC.replace("viewer", "boss"), {"oidc.roles.a": "invalid-value"}),
        (WEB, OIDC + '\nscopes = ["profile"]', {"oidc.scopes": "invalid-value"}),
        (WEB, OIDC + '\nscopes = ["openid", "a b"]', {"oidc.scopes[1]": "invalid-value"}),
        (WEB, OIDC + NO_SECRET, {"oidc.client_secret_file": "secret-file-missing"}),
        (WEB, OIDC + '\nca = "no"', {"oidc.ca": "tls-file-missing"}),
        (WEB, OIDC + '\nca = "node.toml"', {"oidc.ca": "tls-faulty"}),
        (WEB.replace("https", "http"), OIDC, {"web.public_url": "page-in-the-clear"}),
        (WEB.replace("https://node.example", "http://127.0.0.1:8080"), OIDC, {}),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_named(
    tmp_path: Path, web: str, oidc: str, problems: dict[str, str]
) -> None:
    assert found(tmp_path, web=web, oidc=oidc) == problems


@pytest.mark.parametrize(
    ("issuer", "is_one"),
    [
        ("https://login.example/realms/a", True),
        ("https://login.example:8443/", True),
        ("http://127.0.0.1:8080", True),
        ("http://localhost/x", True),
        ("http://[::1]:80", True),
        ("http://login.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("https://user:secret@login.example", False),
        ("https://login.example/?a=b", False),
        ("https://login.example/#a", False),
        ("https://", False),
        ("https://a b", False),
        ("login.example", False),
        ("ftp://login.example", False),
        ("https://login.example:99999", False),
        ("", False),
    ],
)
def test_an_issuer_is_reached_over_tls_or_is_here(
    tmp_path: Path, issuer: str, is_one: bool
) -> None:
    problems = found(tmp_path, oidc=OIDC.replace("https://login.example", issuer))
    assert problems == ({} if is_one else {"oidc.issuer": "invalid-value"})


@pytest.mark.parametrize(
    "url", ["node.example", "https://node.example/page", "https://node.example?x", "ftp://x", ""]
)
def test_a_public_address_is_a_site(tmp_path: Path, url: str) -> None:
    problems = found(tmp_path, web=f'port = 8080\npublic_url = "{url}"')
    assert problems == {"web.public_url": "invalid-value"}


def test_a_secret_is_there_and_for_the_node_alone(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    oidc = OIDC + '\nclient_secret_file = "secret"'
    secret.write_text("\n")
    assert found(tmp_path, oidc=oidc) == {"oidc.client_secret_file": "secret-empty"}
    secret.write_text("x")
    secret.chmod(0o644)
    assert found(tmp_path, oidc=oidc) == {"oidc.client_secret_file": "secret-open-to-all"}
    secret.chmod(0o640)
    assert found(tmp_path, oidc=oidc) == {}


def test_live_asks_the_provider(tmp_path: Path) -> None:
    with providers.provider() as provider:
        oidc = OIDC.replace("https://login.example", provider.issuer)
        assert found(tmp_path, oidc=oidc, live=True) == {}
        assert provider.asked == ["/.well-known/openid-configuration", "/keys"]
        assert found(tmp_path, oidc=oidc.replace("dicomnode", "x"), live=True) == {}
        wrong = oidc.replace(provider.issuer, f"{provider.issuer}/realm")
        assert found(tmp_path, oidc=wrong, live=True) == {"oidc.issuer": "provider-unusable"}
        provider.discovery = {"issuer": "https://x.example"}
        assert found(tmp_path, oidc=oidc, live=True) == {"oidc.issuer": "provider-unusable"}
    nobody = OIDC.replace("https://login.example", f"http://127.0.0.1:{servers.free_port()}")
    assert found(tmp_path, oidc=nobody, live=True) == {"oidc.issuer": "provider-unreachable"}


@pytest.mark.server("openssl")
def test_the_certificate_of_the_provider_is_one_that_is_trusted(
    tmp_path: Path, authority: Authority
) -> None:
    shown = authority.issue("login")
    with providers.provider(certificate=shown.certificate, key=shown.key) as provider:
        oidc = OIDC.replace("https://login.example", provider.issuer)
        assert found(tmp_path, oidc=oidc, live=True) == {"oidc.issuer": "provider-not-trusted"}
        trusting = f'{oidc}\nca = "{authority.certificate}"'
        assert found(tmp_path, oidc=trusting, live=True) == {}
        more = f'ca = "{authority.certificate}"'
        url = "https://node.example"
        folder = tmp_path / "page"
        folder.mkdir()
        web = providers.settings(provider, folder, public_url=url, more=more)
        with paged.pages(folder, web=web) as pages:
            provider.clock = pages.clock
            browser = pages.browser()
            sent = browser.get("/sign-in/oidc").headers["location"]
            assert sent.startswith(f"{provider.issuer}/authorize?")
            assert browser.get(provider.approve(providers.asked_of(sent))).status_code == 200
