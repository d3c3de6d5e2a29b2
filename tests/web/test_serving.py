"""`d3po rate` and `d3po invite` as processes: addresses, locks, signals, and what survives a kill."""

import http.client
import io
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2 as httpx
import psutil
import pytest

from d3po.cli import main
from d3po.errors import ConfigError
from d3po.run.feedback.page import rating_page
from d3po.store import Store
from d3po.store.database import file_address
from d3po.web.server import listen
from tests.web.conftest import House
from tests.web.serving import line_of, serving
from tests.web.world import ask


@pytest.fixture
def run(house: House) -> Path:
    """A run folder whose store nobody else has open."""
    (house.folder / "run.toml").write_text("")
    house.store.close()
    return house.folder


@pytest.fixture
def odd(run: Path) -> Path:
    """The same in a folder whose name means something else in a URL."""
    return run.rename(run.with_name(f"{run.name}?b%20c#d::e&f"))


def d3po(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line as `main` does, in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    words = list(map(str, arguments))
    with redirect_stdout(stdout), redirect_stderr(stderr), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["d3po", *words])
        with pytest.raises(SystemExit) as end:
            main()
    return subprocess.CompletedProcess(words, int(end.value.code or 0), stdout.getvalue(), stderr.getvalue())


def assert_one_clear_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words), line


@pytest.mark.slow
def test_a_run_is_served_whatever_its_folder_is_called(odd: Path) -> None:
    with serving(odd) as server:
        assert httpx.get(f"{server.url}/v1/images/1", headers=server.sign_in()).status_code == 200
        assert_one_clear_line(d3po("rate", odd, "--port", "0", "--no-browser"), "is already served by another `d3po rate`")
        assert d3po("invite", odd, "ada").returncode == 0
    assert list(odd.parent.glob(odd.name.partition("?")[0] + "*")) == [odd], "nothing lies beside the folder"


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM], ids=lambda by: by.name)
def test_a_signal_ends_the_server_in_order(run: Path, by: int) -> None:
    with serving(run) as server:
        assert httpx.get(f"{server.url}/healthz").json()["status"] == "ok"
        assert server.stop(by) == (0, "")


@pytest.mark.slow
def test_a_taken_port_gets_one_clear_line(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_clear_line(d3po("rate", run, "--no-browser", "--port", port), f"port {port}", "--port")


@pytest.mark.slow
def test_a_second_server_at_the_same_database_is_refused(run: Path) -> None:
    with serving(run):
        assert_one_clear_line(d3po("rate", run, "--no-browser", "--port", 0), "another `d3po rate`")


@pytest.mark.slow
def test_what_is_no_run_is_said_in_one_line(tmp_path: Path) -> None:
    assert_one_clear_line(d3po("rate", tmp_path / "nothing", "--no-browser"), "is not a run folder")
    (tmp_path / "run.toml").write_text("")
    assert_one_clear_line(d3po("rate", tmp_path, "--images", "nonsense://x", "--no-browser", "--port", 0), "--images nonsense://x")
    assert_one_clear_line(d3po("rate", tmp_path, "--url", "rate.example.org/x"), "--url rate.example.org/x")
    assert_one_clear_line(d3po("rate", tmp_path, "--store", "mysql://x/y"), "sqlite and postgresql")
    assert_one_clear_line(d3po("invite", tmp_path, "ada@example.org"), "ada@example.org")


def test_an_address_of_another_machine_is_said_in_one_line() -> None:
    with pytest.raises(ConfigError, match="must be an address of this machine"):
        listen("203.0.113.1", 0)
    with pytest.raises(ConfigError, match="is not a valid address"):
        listen("no such host", 0)


@pytest.mark.slow
def test_on_a_public_address_the_printed_link_leads_in(run: Path) -> None:
    with serving(run, "--url", "https://rate.example.org") as server:
        assert server.url == "https://rate.example.org"
        said = line_of(server.process)
        assert "d3po invite" in said
        assert "owner --url https://rate.example.org" in said
        link = d3po("invite", run, "ada", "--url", "https://rate.example.org")
        assert link.returncode == 0, link.stderr
        address, _, token = link.stdout.strip().partition("#")
        assert address == "https://rate.example.org/join"
        local = f"http://127.0.0.1:{port_of(server.process.pid)}"
        assert httpx.get(f"{local}/v1/me").status_code == 401
        reply = httpx.post(f"{local}/v1/session", json={"token": token})
        assert reply.status_code == 204
        cookie = reply.headers["set-cookie"].partition(";")[0]
        assert httpx.get(f"{local}/v1/me", headers={"cookie": cookie}).json()["handle"] == "ada"
        assert httpx.get(f"{local}/v1/me", headers=server.sign_in(local)).json()["handle"] == "owner"
        code, errors = server.stop()
    assert (code, errors) == (0, "")


@pytest.mark.slow
def test_behind_a_proxy_that_says_nothing_of_itself_only_the_link_lets_in(run: Path) -> None:
    with serving(run) as server, plain_proxy(port_of(server.process.pid)) as proxy:
        evil = {"handle": "evil", "role": "admin"}
        for headers in ({}, {"host": f"127.0.0.1:{port_of(server.process.pid)}"}, {"x-forwarded-for": "127.0.0.1"}):
            reply = httpx.post(f"{proxy}/v1/invitations", json=evil, headers=headers)
            assert reply.status_code == 401
        assert "d3po invite RUN owner" in httpx.get(proxy).text
        owner = server.sign_in(proxy)
        assert httpx.post(f"{proxy}/v1/session", json={"token": server.link.partition("#")[2]}).status_code == 403, "once only"
        assert httpx.get(f"{server.url}/v1/me", headers=owner).json()["role"] == "admin"
        again = d3po("invite", run, "owner").stdout.strip().partition("#")[2]
        assert httpx.post(f"{server.url}/v1/session", json={"token": again}).status_code == 204
    with serving(run, "--port", server.url.rpartition(":")[2]) as restarted:
        assert restarted.link != server.link
        assert httpx.get(f"{restarted.url}/v1/me", headers=owner).json()["handle"] == "owner"


@contextmanager
def plain_proxy(port: int) -> Generator[str, None, None]:
    """What nginx is with nothing but proxy_pass: HTTP/1.0 to a server on this machine, the server's own name as Host, no header about itself."""

    class Proxy(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            behind: Any = http.client.HTTPConnection("127.0.0.1", port)
            behind._http_vsn, behind._http_vsn_str = 10, "HTTP/1.0"
            kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            behind.request(self.command, self.path, body, kept | {"Host": f"127.0.0.1:{port}", "Connection": "close"})
            reply = behind.getresponse()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.read())

        do_GET = do_POST = forward

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A browser that does nothing but note which address it was to open, in this file."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "browser.py").write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).write_text(sys.argv[2])\n")
    monkeypatch.setenv("BROWSER", f"{sys.executable} {folder / 'browser.py'} {folder / 'opened'} %s")
    return folder / "opened"


@pytest.mark.slow
def test_a_page_beside_a_run_is_served_or_the_run_does_not_begin(run: Path, browser: Path) -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^port {port} on 127\.0\.0\.1 is in use by another"), rating_page(run, port, said.append):
            raise AssertionError("it went on without a page")
    (run / "d3po.key").write_text("")
    with pytest.raises(ConfigError, match=r"d3po\.key holds no key"), rating_page(run, 0, said.append):
        raise AssertionError("it went on without a page")
    (run / "d3po.key").unlink()
    assert said == []
    with rating_page(run, 0, said.append):
        link = said[0].split()[2]
        assert httpx.get(link).status_code == 200
        until = time.monotonic() + 20
        while not browser.exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert browser.read_text() == link, "the browser is let in at once"
    with pytest.raises(httpx.ConnectError):
        httpx.get(link)


@pytest.mark.slow
@pytest.mark.usefixtures("browser")
def test_a_page_that_dies_beside_a_run_is_noticed(run: Path) -> None:
    said: list[str] = []
    with rating_page(run, 0, said.append):
        (server,) = (child for child in psutil.Process().children() if str(run) in child.cmdline())
        server.kill()
        until = time.monotonic() + 20
        while "ended unexpectedly" not in said[-1] and time.monotonic() < until:
            time.sleep(0.05)
    assert said[-1] == f"the server of the rating page ended unexpectedly (exit code -9); start it again with `d3po rate {run}`"


@pytest.mark.parametrize("port", ["99999", "65536"])
def test_a_port_that_is_none_is_refused_before_anything_is_done(run: Path, port: str) -> None:
    result = d3po("run", run, "--serve", "--port", port)
    assert result.returncode == 2
    assert "65535" in result.stderr


@pytest.mark.slow
def test_pictures_and_store_may_lie_elsewhere(odd: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    office = tmp_path_factory.mktemp("office") / "run"
    with serving(office, "--store", str(file_address(odd / "d3po.db")), "--images", odd.as_uri()) as server:
        reply = httpx.get(f"{server.url}/v1/images/1", headers=server.sign_in())
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
    assert [path.name for path in office.iterdir()] == ["d3po.key"]


@pytest.mark.slow
def test_a_server_killed_under_load_loses_no_acknowledged_vote(house: House, run: Path) -> None:
    store = Store.in_folder(run)
    for kind in ("pair", "best_worst", "rank", "grid", "thumb", "score"):
        ask(store, house.pictures, kind)
    store.close()
    acknowledged: dict[str, str] = {}
    for _ in range(3):
        with serving(run) as server:
            owner = server.sign_in()
            voters = [threading.Thread(target=vote_until_it_dies, args=(server.url, owner, acknowledged)) for _ in range(4)]
            for voter in voters:
                voter.start()
            deadline, before = time.monotonic() + 6, len(acknowledged)
            while len(acknowledged) < before + 40 and time.monotonic() < deadline:
                time.sleep(0.005)
            server.process.kill()
            for voter in voters:
                voter.join()
    assert len(acknowledged) >= 60
    store = Store.in_folder(run)
    with store.database.reading() as connection:
        stored = dict(connection.exec_driver_sql("SELECT id, assignment_id FROM vote").all())
        current_votes = connection.exec_driver_sql(
            "SELECT question_id, annotator_id, count(*) FROM vote v WHERE action = 'cast'"
            " AND NOT EXISTS (SELECT 1 FROM vote w WHERE w.supersedes = v.id) GROUP BY 1, 2 HAVING count(*) > 1"
        ).all()
    store.close()
    assert {vote: stored.get(vote) for vote in acknowledged} == acknowledged
    assert current_votes == []


def vote_until_it_dies(url: str, headers: dict[str, str], acknowledged: dict[str, str]) -> None:
    """Answer, and answer again (a replaced vote is one more), noting what the server said it has."""
    with httpx.Client(base_url=url, headers=headers) as client:
        try:
            while True:
                items = client.get("/v1/queue", params={"n": 4}).json().get("items", [])
                if not items:  # all are taken, or it was asked too often
                    time.sleep(0.05)
                for item in items:
                    vote = {"id": str(uuid4()), "assignment": item["assignment"], "outcome": "skip"}
                    if client.post("/v1/votes", json=vote).status_code == 201:
                        acknowledged[vote["id"]] = vote["assignment"]
                    if client.post(f"/v1/votes/{vote['id']}/retract", json={"id": str(uuid4())}).status_code == 200:
                        client.post("/v1/votes", json=vote | {"id": str(uuid4())})
        except (httpx.HTTPError, ValueError):
            return


def port_of(process: int) -> int:
    """The port a process listens on."""
    return next(c.laddr.port for c in psutil.Process(process).net_connections("tcp") if c.status == "LISTEN")
