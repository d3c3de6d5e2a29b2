"""Serving the app: its address, its one place at the database, and an orderly end."""

import errno
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn
from filelock import FileLock, Timeout

from d3po.errors import ConfigError, RunFolderError
from d3po.preferences.store import Store
from d3po.web.app import create_app
from d3po.web.settings import WebSettings

BACKLOG = 512
SECONDS_TO_FINISH = 5
"""How long requests under way may take once the server is told to end."""


def serve(store: Store, settings: WebSettings, *, announce: Callable[[WebSettings], None], browser: bool) -> None:
    """Serve until Ctrl-C or SIGTERM; every vote taken is on disk when this returns.

    Args:
        store: the run's store; it stays the caller's.
        settings: where and how.
        announce: called once the address is ours, with the port that was found if 0 was asked for.
        browser: open the page here.

    Raises:
        ConfigError: the address is taken, or not one of this machine.
        RunFolderError: another server is at this database.
        StorageError: the store is away.
    """
    with only_server(store.database.file), closing(listen(settings.host, settings.port)) as listener:
        settings = replace(settings, port=listener.getsockname()[1])
        app = create_app(store, settings)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_keep_alive=30, timeout_graceful_shutdown=SECONDS_TO_FINISH,
        )  # fmt: skip
        server = uvicorn.Server(config)
        announce(settings)
        if browser:
            threading.Timer(0.5, webbrowser.open, [settings.link()]).start()
        with _ending_quietly():
            server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket that is ours at an address.

    Raises:
        ConfigError: the address is taken, or not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigError(f"--host {host} is no address: {error.strerror}; use 127.0.0.1 or one of this machine's") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_why_not(error, host, port)) from error
    return listener


@contextmanager
def only_server(database: Path | None) -> Generator[None, None, None]:
    """Be the one server at an SQLite file; other databases (None) take any number.

    Raises:
        RunFolderError: there is another.
    """
    if database is None:
        yield
        return
    lock = FileLock(database.with_name(f"{database.name}.server.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(f"{database} is being served by another `d3po rate`; use that one, or stop it first") from error
    try:
        yield
    finally:
        lock.release()


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken by another program; choose another with --port, or --port 0 for any that is free"
    if error.errno == errno.EACCES:
        return f"port {port} needs rights that you do not have; choose one above 1023 with --port"
    return f"cannot listen on {host}, port {port}: {error.strerror}; --host must be an address of this machine"


@contextmanager
def _ending_quietly() -> Generator[None, None, None]:
    """uvicorn ends in order on these signals, then sends itself the signal again; by then there is nothing left to interrupt."""

    def nothing(_signal: int, _frame: FrameType | None) -> None:
        pass

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, nothing) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
