"""Runs the web server: listens on its address, makes sure that no other server uses the database, and shuts down cleanly."""

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
from fastapi import FastAPI
from filelock import FileLock, Timeout

from d3po.errors import ConfigError, RunFolderError
from d3po.store import Store
from d3po.web.api_admin import invite_owner
from d3po.web.app import create_app
from d3po.web.connections import Connection
from d3po.web.settings import WebSettings

BACKLOG = 128
"""The most connections that may wait to be accepted."""
SECONDS_TO_FINISH = 5
"""How long running requests may take once the server is told to stop."""


def serve(store: Store, settings: WebSettings, *, announce: Callable[[WebSettings, str], None], browser: bool) -> None:
    """Serve until Ctrl-C or SIGTERM. Every acknowledged vote is on disk when this returns.

    Args:
        store: the run's store; the caller closes it.
        settings: the settings of the server.
        announce: called once the server listens, with the settings (including the port, if port 0 was asked for) and the owner's link, which works
            in one browser.
        browser: whether to open the owner's link in this machine's browser.

    Raises:
        ConfigError: the address is in use, or does not belong to this machine.
        RunFolderError: another server uses this database.
        StorageError: the store, or the key that signs invitations, cannot be used.
    """
    with only_server(store.database.file), closing(listen(settings.host, settings.port)) as listener:
        settings = replace(settings, port=listener.getsockname()[1])
        server = uvicorn.Server(uvicorn_config(create_app(store, settings), settings))
        link = settings.invitation_link(invite_owner(store, "server").token)
        announce(settings, link)
        if browser:
            threading.Timer(0.5, webbrowser.open, [link]).start()
        with _ending_quietly():
            server.run(sockets=[listener])


def uvicorn_config(app: FastAPI, settings: WebSettings) -> uvicorn.Config:
    """The configuration of uvicorn. Client addresses reported by a proxy are trusted only if a public URL was given."""
    return uvicorn.Config(
        app, http=Connection, ws="none", proxy_headers=settings.public_url is not None,
        log_config=None, log_level="error", access_log=False, server_header=False,
        backlog=BACKLOG, timeout_keep_alive=30, timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )  # fmt: skip


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        ConfigError: the address is in use, or does not belong to this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"--host {host} is not a valid address: {getattr(error, 'strerror', error)}; use 127.0.0.1 or an address of this machine"
        ) from error
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
    """Within the block, be the only server of an SQLite file. Other databases (None) allow any number of servers.

    Raises:
        RunFolderError: there is another server.
    """
    if database is None:
        yield
        return
    lock = FileLock(database.with_name(f"{database.name}.server.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(f"{database} is already served by another `d3po rate`; use that one, or stop it first") from error
    try:
        yield
    finally:
        lock.release()


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another program; choose another with --port, or --port 0 for any free port"
    if error.errno == errno.EACCES:
        return f"port {port} needs rights that you do not have; choose a port above 1023 with --port"
    return f"cannot listen on {host}, port {port}: {error.strerror}; --host must be an address of this machine"


@contextmanager
def _ending_quietly() -> Generator[None, None, None]:
    """Ignore the signal that uvicorn raises again after it has shut down because of Ctrl-C or SIGTERM."""

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
