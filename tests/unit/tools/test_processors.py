"""The tests as other processors would run them: which are played, in what environment, and what comes out."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools import processors


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, str]]:
    """Those in which tests ran, on a machine with AVX2 alone; they fail where sums are cut in four."""
    seen: list[dict[str, str]] = []

    def run(command: list[str], *, env: dict[str, str], check: bool) -> SimpleNamespace:
        assert command[1:] == ["-m", "pytest", "tests/golden"]
        seen.append(env)
        return SimpleNamespace(returncode=int(env["OMP_NUM_THREADS"] == "4"))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(processors, "CPU", tmp_path / "cpuinfo")
    processors.CPU.write_text("model name : some\nflags\t\t: fpu sse4_1 avx avx2\n")
    monkeypatch.setenv("KEPT", "yes")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx512")  # said by whoever calls, and obeyed by no processor that is played
    return seen


def test_each_processor_that_this_one_can_play_runs_the_tests(
    environments: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert processors.main("tests/golden") == 1
    assert [env.get("ATEN_CPU_CAPABILITY") for env in environments] == ["default", "avx2", None]
    assert all(env["KEPT"] == "yes" for env in environments)
    said = capsys.readouterr().out
    assert "AVX-512: left out" in said
    assert said.endswith("the tests fail on: this one, four threads\n")


def test_a_machine_that_says_nothing_plays_what_every_machine_can(environments: list[dict[str, str]], tmp_path: Path) -> None:
    processors.CPU.unlink()
    processors.main("tests/golden")
    assert [env.get("ATEN_CPU_CAPABILITY") for env in environments] == ["default", None]
