"""A PostgreSQL server of the tests' own: in a temporary folder, reached through a socket in it, gone afterwards."""

import os
import pwd
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from tools.postgresql import programs

SETTINGS = {"fsync": "off", "listen_addresses": "''", "max_connections": "100", "shared_buffers": "32MB"}


class Server:
    """A running server; every call of `database` makes a new database."""

    def __init__(self, bin: Path) -> None:
        self._bin = bin
        self._folder = Path(tempfile.mkdtemp(prefix="d3po-pg-", dir="/tmp"))  # short: a socket's path has at most 107 characters
        self._user = _user()
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._numbers = count()
        self._run("initdb", "--username=d3po", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        settings = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self._folder}/log", f"--options={settings} -k {self._folder}")

    def database(self) -> str:
        """The URL of a new database with nothing in it."""
        name = f"test{next(self._numbers)}"
        engine = create_engine(self.url("postgres").replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://d3po@/{name}?host={self._folder}"

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "stop", "--wait", "--silent", f"--mode={mode}")

    def start_again(self) -> None:
        settings = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self._folder}/log", f"--options={settings} -k {self._folder}")

    def remove(self) -> None:
        """Stop it, wherever it is, and take its folder away."""
        subprocess.run(self._command("pg_ctl", "stop", "--mode=immediate", "--silent"), check=False, **self._as_user())
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(self._command(program, *arguments), check=True, **self._as_user())

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [str(self._bin / program), *arguments, f"--pgdata={self._folder}/data"]

    def _as_user(self) -> dict[str, Any]:
        return {"user": self._user, "cwd": self._folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 120}


def start() -> Server | None:
    """A new server, or None if none is installed."""
    bin = programs()
    return None if bin is None else Server(bin)


def _user() -> str | None:
    """Somebody else, if we are root, whom PostgreSQL refuses to run as."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"
