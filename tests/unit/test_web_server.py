"""The page's server: where it listens, with what, and how it ends."""

from __future__ import annotations

import socket
import ssl
import time
import urllib.request
from pathlib import Path

import paged
import pytest
from certificates import Authority

from dicomnode import check, config
from dicomnode.archive.database import Database
from dicomnode.config import Configuration
from dicomnode.errors import Misconfigured
from dicomnode.web import Page


def made(folder: Path, web: str) -> Configuration:
    file = folder / "node.toml"
    file.write_text(paged.CONFIGURATION.replace("[web]\nport = 0", f"[web]\n{web}"))
    configuration = config.load(file, {})
    configuration.node.data_dir.mkdir(exist_ok=True)
    database = Database(configuration.database.url)
    database.migrate()
    database.close()
    return configuration


def page(configuration: Configuration, folder: Path) -> Page:
    return Page(configuration, file=folder / "node.toml")


def test_a_page_listens_where_it_says_and_ends(tmp_path: Path) -> None:
    running = page(made(tmp_path, "port = 0"), tmp_path)
    assert running.port is None
    running.start(is_listening=lambda: True)
    port = running.port
    address = f"http://127.0.0.1:{port}/readyz"
    with urllib.request.urlopen(address) as answer:
        assert answer.status == 200
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < 8
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address)


def test_without_a_port_there_is_no_page(tmp_path: Path) -> None:
    none = page(made(tmp_path, ""), tmp_path)
    none.start(is_listening=lambda: True)
    assert none.port is None
    none.stop()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(Misconfigured, match="page-cannot-listen"):
            page(made(tmp_path, f"port = {number}"), tmp_path).start(is_listening=lambda: True)


@pytest.mark.server("openssl")
def test_a_page_with_a_certificate_speaks_tls(tmp_path: Path, authority: Authority) -> None:
    shown = authority.issue("page")
    web = f'port = 0\ncertificate = "{shown.certificate}"\nkey = "{shown.key}"'
    configuration = made(tmp_path, web)
    assert not [one for one in check.run(tmp_path / "node.toml", {}) if "web" in one.path]
    running = page(configuration, tmp_path)
    running.start(is_listening=lambda: True)
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    trusting.check_hostname = False
    with urllib.request.urlopen(
        f"https://127.0.0.1:{running.port}/sign-in", context=trusting
    ) as answer:
        assert "__Host-dicomnode-form" in answer.headers["set-cookie"]
        assert "Secure" in answer.headers["set-cookie"]
    running.stop()


def test_a_certificate_that_is_none_is_named_before_and_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "page.crt").write_text("no certificate")
    (tmp_path / "page.key").write_text("no key")
    web = 'port = 0\ncertificate = "page.crt"\nkey = "page.key"'
    configuration = made(tmp_path, web)
    codes = {one.code for one in check.run(tmp_path / "node.toml", {})}
    assert "tls-faulty" in codes
    with pytest.raises(Misconfigured, match="page-certificate"):
        page(configuration, tmp_path).start(is_listening=lambda: True)


@pytest.mark.parametrize(
    ("web", "code"),
    [
        ('port = 0\nhost = "0.0.0.0"', "page-in-the-clear"),
        ('port = 0\nhost = "203.0.113.9"', "address-not-here"),
        ('port = 0\ncertificate = "a"', "tls-incomplete"),
        ('port = 0\nkey = "a"', "tls-incomplete"),
        ('port = 0\ncertificate = "a"\nkey = "b"', "tls-file-missing"),
        ("port = 104", "one-port-for-two"),
        ("port = 70000", "invalid-value"),
        ("session_hours = 0", "invalid-value"),
    ],
)
def test_check_names_what_is_wrong_with_the_page(tmp_path: Path, web: str, code: str) -> None:
    file = tmp_path / "node.toml"
    text = paged.CONFIGURATION.replace("[web]\nport = 0", f"[web]\n{web}")
    file.write_text(text.replace('host = "127.0.0.1"\nport = 0', 'host = "127.0.0.1"\nport = 104'))
    codes = {one.code for one in check.run(file, {}) if one.path.startswith("web")}
    assert code in codes, codes


@pytest.mark.parametrize("web", ["", "port = 0", 'port = 0\nhost = "localhost"'])
def test_check_has_nothing_against_a_page_of_this_machine(tmp_path: Path, web: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(paged.CONFIGURATION.replace("[web]\nport = 0", f"[web]\n{web}"))
    assert not [one for one in check.run(file, {}) if one.path.startswith("web")]
