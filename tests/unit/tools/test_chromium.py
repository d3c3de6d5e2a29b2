"""What brings the browser tests their browser does so where it can, and otherwise says why not."""

import subprocess
from pathlib import Path

import pytest

from tools import chromium


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """A Debian without a browser, where we are root; the commands that would be run."""
    made: list[list[str]] = []
    (tmp_path / "os-release").write_text("NAME=Debian\nID=debian\n")
    monkeypatch.setattr(chromium, "OS_RELEASE", tmp_path / "os-release")
    monkeypatch.delenv("D3PO_CHROMIUM", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)
    monkeypatch.setattr(subprocess, "run", lambda command, **options: made.append(command))
    return made


def test_debians_package_is_installed(calls: list[list[str]]) -> None:
    chromium.main()
    assert [command[:2] for command in calls] == [["apt-get", "update"], ["apt-get", "install"]]
    assert calls[1][-2:] == list(chromium.PACKAGES)


def test_a_browser_that_is_here_or_named_is_enough(calls: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D3PO_CHROMIUM", "/opt/chromium")
    chromium.main()
    monkeypatch.delenv("D3PO_CHROMIUM")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    chromium.main()
    assert calls == []


@pytest.mark.parametrize("missing", ["root", "apt-get", "Debian"])
def test_where_it_cannot_be_installed_the_reason_is_said(
    calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    if missing == "root":
        monkeypatch.setattr("os.geteuid", lambda: 1000)
    elif missing == "apt-get":
        monkeypatch.setattr("shutil.which", lambda name: None)
    else:
        chromium.OS_RELEASE.write_text("ID=ubuntu\nID_LIKE=debian\n")
    chromium.main()
    assert calls == []
    assert "browser tests are skipped" in capsys.readouterr().out


def test_an_installation_that_fails_fails_no_test(
    calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: list[str], **options: object) -> None:
        raise subprocess.CalledProcessError(100, command)

    monkeypatch.setattr(subprocess, "run", fail)
    chromium.main()
    assert "could not be installed" in capsys.readouterr().err
