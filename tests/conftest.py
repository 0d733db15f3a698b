"""What every test stands on: a clean environment, no network, and a word on what is missing."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections import Counter
from pathlib import Path

import hypothesis
import pytest
import servers
import torchvision_operators
from certificates import Authority

# A fixture is offered to every test by standing in this module.
from servers import orthanc, postgres, postgres_url, redis_server  # noqa: F401 - see above

from dicomnode import log

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")

torchvision_operators.define_when_imported()

hypothesis.settings.register_profile("short", max_examples=25, deadline=None)
hypothesis.settings.register_profile("long", max_examples=1000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def pytest_report_collectionfinish(items: list[pytest.Item]) -> list[str]:
    """Say before the first test which packages are missing, and how many tests that concerns."""
    lacking = Counter(package for item in items for package in servers.missing(_packages(item)))
    lines = [
        f"missing Debian package {package}; tests that need it: {count}"
        for package, count in sorted(lacking.items())
    ]
    without_images = sum(item.get_closest_marker("data") is not None for item in items)
    if without_images and not DATA.is_dir():
        lines.append(f"missing images (../shared/data); tests that need them: {without_images}")
    return lines


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail where servers are required, before anything of the test is set up."""
    lacking = servers.missing(_packages(item))
    if lacking:
        servers.do_without(f"needs the Debian package {', '.join(lacking)}")
    if item.get_closest_marker("data") is not None and not DATA.is_dir():
        pytest.skip("needs the images of ../shared/data")


def _packages(item: pytest.Item) -> tuple[str, ...]:
    """The Debian packages that a test needs: by its marks, or by the fixtures that it asks for."""
    named = [name for mark in item.iter_markers("server") for name in mark.args]
    for fixture in getattr(item, "fixturenames", ()):
        named += servers.PACKAGES_OF_FIXTURE.get(fixture, ())
    return tuple(dict.fromkeys(named))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration and no proxy of the surroundings reaches a test."""
    for name in list(os.environ):
        if name.startswith("DICOMNODE__") or name.lower() in _PROXIES:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def strict_log() -> None:
    """A log key that is not on the list raises in the test that reaches it."""
    log.configure(level="debug", as_json=True, strict=True)


@pytest.fixture
def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now."""
    return servers.free_port()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Signs certificates for the test."""
    return Authority(tmp_path / "authority")


def _stay_on_this_machine(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse a connection that leaves this machine."""
    if event != "socket.connect":
        return
    address = arguments[1]
    if isinstance(address, tuple) and not _is_local(str(address[0])):
        raise RuntimeError(f"a test wanted to connect to {address[0]}")


def _is_local(host: str) -> bool:
    if host in {"", "localhost", "0.0.0.0"}:
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


sys.addaudithook(_stay_on_this_machine)
