"""What saves memory does not change what a run makes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d3po.artifacts.files import sha256
from d3po.artifacts.shards import Shard
from d3po.progress import Narrator
from d3po.run.feedback.measured import compare_round
from d3po.run.folder import RunFolder
from d3po.run.opened import open_run
from d3po.run.sample.encoding import encoded
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.run.train.phase import train_round
from d3po.store import PictureRecord
from d3po.training.reference import reference_steps
from tests.precision import IN_FLOAT64, assert_all_same, assert_same

SHORT = {"training.epochs": "1", "training.learning_rate": "1e-4", "sampling.steps": "3", "sampling.prompts_per_round": "2"} | IN_FLOAT64
SPARING = {
    "hardware.text_encoders": "free",
    "hardware.decoding": "sliced",
    "hardware.channels_last": "true",
    "training.gradient_checkpointing": "true",
}


class Listener(Narrator):
    """Remembers what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def opened(folder: RunFolder) -> Session:
    return Session(open_run(folder, Listener()))


def said(session: Session) -> list[str]:
    """What was said of memory."""
    assert isinstance(session.run.narrator, Listener)
    return [line for line in session.run.narrator.said if "memory" in line]


def cramped(method: Any, most: int) -> Any:
    """A method of a policy on a device that has room for `most` images at a time."""

    def attempt(images: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return method(images, *rest)

    return attempt


def one_round(folder: RunFolder, most: int | None = None) -> Session:
    """A round, on a device that has room for `most` images at a time, or for any number."""
    session = opened(folder)
    if most:
        session.policy.predict = cramped(session.policy.predict, most)
    folder.mark_started(session.run.config)
    sample_round(session, 0)
    compare_round(session.run, 0)
    train_round(session, 0)
    return session


def test_a_run_that_spares_memory_makes_the_same_pictures_and_updates(make_run: Callable[..., RunFolder]) -> None:
    plain = one_round(make_run("plain", SHORT))
    sparing = one_round(make_run("sparing", SHORT | SPARING), most=4)
    assert said(sparing) == [
        "sampling: a batch of 6 does not fit into memory; continuing with batches of 3",
        "training: a batch of 9 does not fit into memory; continuing with batches of 5",
    ]
    assert next(w for w in sparing.policy.network.parameters() if w.ndim == 4 and w.shape[-1] > 1).is_contiguous(
        memory_format=torch.channels_last
    )
    shards = [Shard(path=session.run.folder.shard(0, 0)).latents(3) for session in (plain, sparing)]
    assert_same(shards[1], shards[0])
    assert len(list(sparing.run.folder.embeddings.iterdir())) == 3, "two prompts and the negative one"
    assert_all_same(sparing.policy.state(), plain.policy.state())


def test_the_reference_is_asked_and_pictures_are_encoded_in_halves_where_they_do_not_fit(
    make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d3po.batch_sizer.clear_device_cache", lambda **_: None)
    session = opened(make_run(settings=SHORT))
    sample_round(session, 0)
    shard, condition = Shard(path=session.run.folder.shard(0, 0)), session.policy.encode_prompts(["a cat"] * 6)
    pictures = [
        PictureRecord(
            id=image.id,
            series="s",
            prompt_id=0,
            prompt="a cat",
            number=0,
            path=image.path,
            sha256=sha256(session.run.folder.path / image.path),
            origin="imported",
            model="",
            policy="",
        )
        for image in session.run.store.pictures.images(0)
    ]

    def made() -> tuple[torch.Tensor, ...]:
        steps = reference_steps(session.policy, session.replay, shard, condition, micro_batch_size=5, sizer=session.reference_sizer)
        (latents,) = {place[0] for place in encoded(session, pictures).values()}
        kept = latents.latents(0)
        latents.path.unlink()
        return steps.log_probs, steps.sketches, kept

    whole = made()
    assert said(session) == []
    for method in ("predict", "encode"):
        monkeypatch.setattr(session.policy, method, cramped(getattr(session.policy, method), 3))
    for halves, together in zip(made(), whole, strict=True):
        assert_same(halves, together)
    assert said(session) == [
        "reference log-probs: a batch of 5 does not fit into memory; continuing with batches of 3",
        "encoding: a batch of 6 does not fit into memory; continuing with batches of 3",
    ]


def test_a_run_with_channels_last_saves_its_moving_reference_and_its_model(make_run: Callable[..., RunFolder], tmp_path: Path) -> None:
    folder = make_run(settings=SHORT | {"hardware.channels_last": "true", "objective.reference": "ema", "rounds": "1"})
    one_round(folder)
    session = Session(open_run(folder))
    session.load_round_weights(1)
    assert tmp_path / "merged" in session.policy.export(tmp_path)


def test_settings_of_the_hardware_may_change_in_a_begun_run(make_run: Callable[..., RunFolder]) -> None:
    folder = make_run()
    folder.mark_started(folder.config())
    assert folder.change({"hardware.text_encoders": "offload"}).hardware.text_encoders == "offload"


def test_the_denoiser_is_compiled_where_that_is_wanted(make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: compiled.append(network))
    for name, wanted in (("plain", "false"), ("compiled", "true")):
        folder = make_run(name, {"hardware.compile": wanted})
        session = Session(open_run(folder))
        network = session.policy.network
        assert compiled == ([network] if wanted == "true" else [])
