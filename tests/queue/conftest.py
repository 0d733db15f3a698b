"""A database of each kind, with its schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.archive.database import Database


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server("postgresql"))]
)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A fresh database."""
    url = (
        f"sqlite:///{tmp_path}/node.db"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres_url")
    )
    made = Database(url)
    made.migrate()
    yield made
    made.close()
