"""Databases for the store's tests: SQLite in a file, and PostgreSQL from the system's packages, started on loopback."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import psycopg

from tests.live import wait_until
from tests.runs import record
from winnow.models.types import Message, Prompt
from winnow.server.store.rows import Served

START_SECONDS = 30


def served(number: int, seed: int = 0, question: str | None = None, **fields: object) -> Served:
    """Return the answer to a question, with eight candidates."""
    made = record(1, Random(number * 1000 + seed)).selection
    if question is not None:
        made = replace(made, prompt=Prompt((), (Message("user", question),), made.prompt.is_safety))
    values = {"created": 1_700_000_000 + number, "model": "winnow-demo", "n": 1, "temperature": 1.0, **fields}
    return Served(id=f"chatcmpl-{number:032x}", selection=made, **values)  # type: ignore[arg-type]


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; None where it is not installed."""
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    if found := shutil.which("initdb"):
        places.insert(0, Path(found).resolve().parent)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Start PostgreSQL on a free port of the loopback address and yield the URL of its server, without a database."""
    owner = _owner()
    with tempfile.TemporaryDirectory(prefix="winnow-postgresql-", ignore_cleanup_errors=True) as data:
        if owner:
            os.chown(data, owner.pw_uid, owner.pw_gid)
        own = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}
        options = ["--auth=trust", "--username=winnow", "--encoding=UTF8", "--no-locale", "--no-sync"]
        subprocess.run(
            [folder / "initdb", "-D", f"{data}/db", *options], check=True, capture_output=True, cwd=data, **own
        )
        port = _free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 20,
        }
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        server = subprocess.Popen(
            [folder / "postgres", "-D", f"{data}/db", *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=data,
            **own,
        )
        url = f"postgresql://winnow@127.0.0.1:{port}"
        try:
            assert wait_until(lambda: _answers(url), START_SECONDS), "PostgreSQL did not start"
            yield url
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(START_SECONDS)


def end_sessions(url: str) -> None:
    """End Winnow's connections to a PostgreSQL server, as a restart or a limit on idle ones does, and see them gone."""
    with psycopg.connect(url, autocommit=True) as connection:
        ours = "FROM pg_stat_activity WHERE application_name = 'winnow'"
        connection.execute(f"SELECT pg_terminate_backend(pid) {ours}")
        assert wait_until(lambda: connection.execute(f"SELECT count(*) {ours}").fetchone() == (0,), START_SECONDS)


def _owner() -> pwd.struct_passwd | None:
    """Return the user that the server runs as where that may not be this one: it refuses root."""
    if os.geteuid():
        return None
    names = {user.pw_name: user for user in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _answers(url: str) -> bool:
    try:
        psycopg.connect(f"{url}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
