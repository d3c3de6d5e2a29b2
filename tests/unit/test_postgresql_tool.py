"""What brings the tests their PostgreSQL server does so where it can, and otherwise says why not."""

import subprocess
from pathlib import Path

import pytest

from tools import postgresql


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """A Debian without PostgreSQL, where we are root; the commands that would be run."""
    made: list[list[str]] = []
    monkeypatch.setattr(postgresql, "PROGRAMS", tmp_path / "lib")
    monkeypatch.setattr(postgresql, "CLUSTERS", tmp_path / "etc" / "createcluster.conf")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)
    monkeypatch.setattr(subprocess, "run", lambda command, **options: made.append(command))
    return made


def test_the_newest_installed_server_is_taken(calls: list[list[str]]) -> None:
    for version in ("9.6", "15", "14"):
        (postgresql.PROGRAMS / version / "bin").mkdir(parents=True)
        (postgresql.PROGRAMS / version / "bin" / "initdb").touch()
    assert postgresql.programs() == postgresql.PROGRAMS / "15" / "bin"
    postgresql.main()
    assert calls == []


def test_debians_package_is_installed_without_a_server_of_its_own(calls: list[list[str]]) -> None:
    postgresql.main()
    assert [command[:2] for command in calls] == [["apt-get", "update"], ["apt-get", "install"]]
    assert calls[1][-1] == "postgresql"
    assert postgresql.CLUSTERS.read_text() == "create_main_cluster = false\n"


@pytest.mark.parametrize("missing", ["root", "apt-get"])
def test_where_it_cannot_be_installed_the_reason_is_said(
    calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    if missing == "root":
        monkeypatch.setattr("os.geteuid", lambda: 1000)
    else:
        monkeypatch.setattr("shutil.which", lambda name: None)
    postgresql.main()
    assert calls == []
    assert "tests on it are skipped" in capsys.readouterr().out


def test_an_installation_that_fails_fails_no_test(
    calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: list[str], **options: object) -> None:
        raise subprocess.CalledProcessError(100, command)

    monkeypatch.setattr(subprocess, "run", fail)
    postgresql.main()
    assert "could not be installed" in capsys.readouterr().err
