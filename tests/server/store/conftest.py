from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.server.store.databases import postgresql, programs

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server, without a database."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    with postgresql(folder) as url:
        yield url


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """The URL of a new, empty schema in a PostgreSQL database: cheaper than a database of its own."""
    name = f"winnow{next(_numbers)}"
    with psycopg.connect(f"{postgresql_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{postgresql_server}/postgres?options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The place of a new store, in each database."""
    if request.param == "sqlite":
        return str(tmp_path / "winnow.db")
    return str(request.getfixturevalue("postgresql_url"))
