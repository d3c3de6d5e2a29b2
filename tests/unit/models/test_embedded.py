"""The embedded model is whole, small, loads offline, and draws what it is asked for."""

import json
import socket
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from d3po.embedded import EMBEDDED
from d3po.models.families import model_directory
from d3po.models.load import load_policy
from d3po.run.prompts import choose_prompts, shared_prompts
from d3po.scorers.learned.classifier import load_classifier

ASSETS = EMBEDDED["emoji"].directory


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_one_call_of_plain_diffusers_loads_it_with_sockets_blocked() -> None:
    pipeline: Any = StableDiffusionPipeline.from_pretrained(model_directory("emoji"))
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    pictures = pipeline(
        ["a panda"] * 2, num_inference_steps=4, guidance_scale=3.0, height=32, width=32, generator=generator, output_type="np"
    ).images
    assert pictures.shape == (2, 32, 32, 3)


def test_its_weights_fit_in_twelve_megabytes_and_hold_no_pickle() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*.safetensors")) <= 12_000_000
    assert not [path for path in ASSETS.rglob("*") if path.suffix in {".bin", ".pt", ".pkl", ".ckpt"}]


def test_its_card_says_what_was_measured() -> None:
    measured = json.loads((ASSETS / "measured.json").read_text())
    card = (ASSETS / "README.md").read_text()
    for name, by_subject in measured.items():
        accuracy = sum(by_subject.values()) / len(by_subject)
        assert accuracy >= 0.9, name
        assert f"{accuracy:.1%}" in card, name


@torch.no_grad()
def test_samples_show_the_label_in_their_prompt() -> None:
    """A fresh sample of 24 prompts; the gate of the model card is 90 % over 480, this allows for chance."""
    from d3po.config import RunConfig
    from d3po.diffusion.noise import NoiseStreams, seeded
    from d3po.diffusion.rollout import rollout
    from d3po.recipes import load_recipe
    from d3po.run.session import make_replay

    policy = load_policy("emoji", lora={"rank": 2, "alpha": 2.0, "targets": "attention"}, seed=0)
    classifier = load_classifier()
    config: RunConfig = load_recipe("default")
    replay = make_replay(policy, config)
    prompts = [f"a {subject}" for subject in classifier.labels]
    start = torch.stack([torch.randn(policy.latent_shape, generator=seeded(9, prompt)) for prompt in prompts])
    condition = policy.encode_prompts(prompts)

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return policy.predict(x, t, condition, 3.0)

    noise = NoiseStreams([(10, prompt) for prompt in prompts])
    *_, last = rollout(predict, replay.transition, replay.grid, start, noise.draw, reduce="mean")
    read = classifier.accuracy(policy.decode(last.latents), prompts)
    assert sum(value or 0.0 for value in read) / len(read) >= 0.8


def test_training_and_held_out_prompts_share_no_subject() -> None:
    told = list[str]()
    trained, held_out = choose_prompts(None, None, skip_empty=False, say=told.append)
    assert told == []
    assert shared_prompts(trained, held_out) == []
    classifier = load_classifier()
    of_trained, of_held_out = ({classifier.label_in(prompt) for prompt in prompts} for prompts in (trained, held_out))
    assert None not in of_trained | of_held_out
    assert not of_trained & of_held_out
