"""A round's rollouts and pictures on fixed noise, by a model whose every number is known."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from d3po.artifacts.shards import Shard
from d3po.config import Size
from d3po.errors import CorruptFileError, ModelError, NonFiniteError
from d3po.run.opened import OpenRun, open_run
from d3po.run.sample.branching import branch_of
from d3po.run.sample.buckets import bucket_of
from d3po.run.sample.phase import is_sampled, sample_pictures, sample_round, to_uint8
from d3po.run.session import Session
from tests.unit.run.conftest import SessionWith, said
from tests.unit.run.toy import GUIDANCE, STEPS, policy_of

ONE_EACH = {"sampling.prompts_per_shard": "1"}
BRANCHING = {"objective.name": "d3po_branch", "sampling.branch": "true", "seed": "4"}


def shard_of(run: OpenRun, number: int = 0) -> Shard:
    return Shard(path=run.folder.shard(0, number))


def trajectories(run: OpenRun) -> dict[tuple[str, int], Tensor]:
    """By prompt and number of the image: its latents from x_T to x_0."""
    numbers = {record.id: record.number for record in run.store.pictures.shards(0)}
    whole = {number: torch.stack([shard_of(run, number).latents(step) for step in range(STEPS + 1)]) for number in numbers.values()}
    return {(image.prompt, image.number): whole[numbers[image.shard_id]][:, image.row] for image in run.store.pictures.images(0)}


def files_of(run: OpenRun) -> dict[str, bytes]:
    """What the round has left on disk."""
    root = run.folder.path
    paths = [path for folder in ("rollouts", "images") for path in (root / folder).rglob("*") if path.is_file()]
    return {run.folder.relative(path): path.read_bytes() for path in paths}


def pixels(run: OpenRun, path: str) -> np.ndarray:
    return np.asarray(Image.open(run.folder.path / path))


def sampled(session: Session) -> Session:
    sample_round(session, 0)
    return session


def stopping(session: Session, after: int) -> None:
    """Let the model fail at the call after so many."""
    network, calls = policy_of(session).network, iter(range(after))

    def count(*_: object) -> None:
        if next(calls, None) is None:
            raise InterruptedError

    network.register_forward_pre_hook(count)


def test_a_round_records_each_prompts_pictures_and_the_trajectories_that_end_in_them(session_with: SessionWith) -> None:
    session = sampled(session_with(sampled=False))
    run, policy = session.run, policy_of(session)
    images = run.store.pictures.images(0)
    assert [(image.prompt, image.number) for image in images] == [(images[i].prompt, i % 3) for i in range(6)]
    assert {image.prompt for image in images} == {"a cat", "a dog"}
    assert {picture.policy for picture in run.store.pictures.series("round-000")} == {"base"}
    for image, (_, latents) in zip(images, trajectories(run).items(), strict=True):
        assert (pixels(run, image.path) == to_uint8(policy.decode(latents[None, -1]))[0]).all()
    assert is_sampled(run, 0)
    assert not is_sampled(run, 1)


def test_a_step_is_drawn_around_what_the_model_expects_and_scored_by_that_density(session_with: SessionWith) -> None:
    """Of the first step, mean and log-prob by the DDIM formula; the last one, which is deterministic, has none and ends in what is expected."""
    session = session_with()
    shard, told = shard_of(session.run), GUIDANCE * len("a cat") / 100  # both prompts are as long
    x_t, x_next, log_probs = shard.latents(0), shard.latents(1), shard.log_probs()
    alphas = torch.linspace(0.99, 0.1, 100)
    now, after = alphas[99], alphas[74]
    x_0 = x_t / 2 + told
    noise = (x_t - now.sqrt() * x_0) / (1 - now).sqrt()
    std = ((1 - after) / (1 - now) * (1 - now / after)).sqrt()
    mean = after.sqrt() * x_0 + (1 - after - std**2).sqrt() * noise
    density = torch.distributions.Normal(mean, std).log_prob(x_next).mean(dim=(1, 2, 3))
    assert torch.allclose(log_probs[0], density, atol=1e-5)
    assert log_probs[: STEPS - 1].isfinite().all()
    assert log_probs[STEPS - 1].isnan().all()
    assert torch.allclose(shard.clean(), shard.latents(STEPS - 1) / 2 + told, atol=1e-5)


def test_a_picture_does_not_depend_on_its_batch(session_with: SessionWith, tmp_path_factory: pytest.TempPathFactory) -> None:
    session = session_with()
    together = trajectories(session.run)
    shutil.move(session.run.folder.path, tmp_path_factory.mktemp("first"))
    apart = sampled(session_with(ONE_EACH, sampled=False))
    assert policy_of(apart).network.calls == [3] * 2 * STEPS
    alone = trajectories(apart.run)
    assert together.keys() == alone.keys()
    assert all(torch.equal(together[who], alone[who]) for who in together)


@pytest.mark.parametrize("shared", [True, False])
def test_a_prompts_images_start_from_one_noise_where_they_are_to(session_with: SessionWith, shared: bool) -> None:
    starts = shard_of(session_with({"sampling.shared_start": str(shared).lower()}).run).latents(0)
    alike = [torch.equal(starts[a], starts[b]) for a, b in [(0, 1), (1, 2), (3, 4), (4, 5)]]
    assert alike == [shared] * 4
    assert not torch.equal(starts[0], starts[3]), "each prompt has its own"


def test_images_that_branch_go_one_way_up_to_their_step(session_with: SessionWith) -> None:
    session = session_with(BRANCHING)
    assert [branch_of(session, 0, prompt) for prompt in ("a cat", "a dog")] == [2, 1], "drawn from the seed"
    for prompt in ("a cat", "a dog"):
        ways = [trajectories(session.run)[prompt, number] for number in range(3)]
        parted = branch_of(session, 0, prompt)
        assert parted is not None
        assert [torch.equal(ways[0][step], ways[1][step]) for step in range(STEPS + 1)] == [step <= parted for step in range(STEPS + 1)]


def test_images_that_branch_in_one_step_alone_share_their_noise_again_after_it(session_with: SessionWith) -> None:
    """The toy's steps are linear, so under shared noise what parts two images is multiplied by one number in each step."""
    session = session_with(BRANCHING | {"sampling.branch_noise": '"step"', "seed": "5"})
    checked = 0
    for prompt in ("a cat", "a dog"):
        one, other = (trajectories(session.run)[prompt, number].double() for number in range(2))
        parted = branch_of(session, 0, prompt)
        assert parted is not None
        for step in range(parted + 1, STEPS):
            factors = (one[step + 1] - other[step + 1]) / (one[step] - other[step])
            assert factors.std() < 1e-3 * factors.mean().abs()
            checked += 1
    assert checked, "a prompt of this seed branches before its last step"


def test_what_is_judged_may_be_what_is_expected_right_after_the_branch(session_with: SessionWith) -> None:
    session = session_with(BRANCHING | {"sampling.judged": "expected"})
    ways, told = trajectories(session.run), GUIDANCE * 5 / 100
    for image in session.run.store.pictures.images(0):
        after = (branch_of(session, 0, image.prompt) or 0) + 1
        expected = ways[image.prompt, image.number][None, after] / 2 + told
        shown = to_uint8(policy_of(session).decode(expected))[0].astype(int)
        assert np.abs(pixels(session.run, image.path).astype(int) - shown).max() <= 1, "but for rounding"
        finished = to_uint8(policy_of(session).decode(ways[image.prompt, image.number][None, -1]))[0]
        assert (pixels(session.run, image.path) == finished).all() == (image.prompt == "a cat"), "whose next step is the last"


def test_pictures_have_the_size_that_their_prompt_was_drawn(session_with: SessionWith) -> None:
    sizes: list[Size] = [(8, 4), (4, 8)]
    session = session_with({"sampling.buckets": str([list(size) for size in sizes]), "seed": "3"})
    found = {image.prompt: pixels(session.run, image.path).shape[1::-1] for image in session.run.store.pictures.images(0)}
    assert found == {prompt: bucket_of(session.run.config, prompt) for prompt in ("a cat", "a dog")}
    assert set(found.values()) == set(sizes), "the seed draws both"


def test_what_is_sampled_already_is_not_sampled_again(session_with: SessionWith) -> None:
    session = session_with()
    before, forwards = files_of(session.run), policy_of(session).network.forwards
    sample_round(session, 0)
    assert (files_of(session.run), policy_of(session).network.forwards) == (before, forwards)


def test_a_round_that_was_killed_halfway_ends_with_the_same_bytes(
    session_with: SessionWith, tmp_path_factory: pytest.TempPathFactory
) -> None:
    session = session_with(ONE_EACH)
    straight = files_of(session.run)
    shutil.move(session.run.folder.path, tmp_path_factory.mktemp("straight"))
    killed = session_with(ONE_EACH, sampled=False)
    stopping(killed, after=STEPS + 2)
    with pytest.raises(InterruptedError):
        sample_round(killed, 0)
    assert [record.number for record in killed.run.store.pictures.shards(0)] == [0]
    assert not is_sampled(killed.run, 0)
    with closing(open_run(killed.run.folder, killed.run.narrator)) as run:
        sample_round(resumed := Session(run), 0)
        assert policy_of(resumed).network.forwards == 3 * STEPS, "only the second shard"
        assert is_sampled(run, 0)
        assert files_of(run) == straight


@pytest.mark.parametrize(("which", "damage"), [("shard", "changed"), ("picture", "gone")])
def test_repair_makes_what_is_damaged_again_and_nothing_else(session_with: SessionWith, which: str, damage: str) -> None:
    session = session_with(ONE_EACH)
    before, run = files_of(session.run), session.run
    path = run.folder.shard(0, 1) if which == "shard" else run.folder.path / run.store.pictures.images(0)[5].path
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-1] + b"?")
    forwards = policy_of(session).network.forwards
    sample_round(session, 0)
    assert files_of(run) != before
    sample_round(session, 0, repair=True)
    assert files_of(run) == before
    assert policy_of(session).network.forwards - forwards == 3 * STEPS, "those of one shard"


def test_a_repair_that_comes_out_otherwise_is_refused(session_with: SessionWith) -> None:
    session = session_with(ONE_EACH)
    session.run.folder.shard(0, 1).unlink()
    policy_of(session).move(0.5)
    with pytest.raises(CorruptFileError, match=r"shard 1 of round 0 was made again but differs from the recorded one .*start a new run"):
        sample_round(session, 0, repair=True)


def test_of_a_model_that_gives_no_numbers_no_picture_is_made(session_with: SessionWith) -> None:
    session = session_with(sampled=False)
    policy_of(session).move(float("nan"))
    with pytest.raises(
        ModelError, match=r"the denoiser of toy gives values that are infinite or not a number, for 6 of 6 inputs; no picture"
    ):
        sample_round(session, 0)
    session.moved(1)
    with pytest.raises(NonFiniteError, match=r"training has gone too far. Lower training\.learning_rate"):
        sample_pictures(session, ["a bee"], 1, stream="s", title="t")
    assert files_of(session.run) == {}
    assert session.run.store.pictures.images(0) == []


def test_a_decoder_that_gives_no_numbers_is_named(session_with: SessionWith, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_with(sampled=False)
    monkeypatch.setattr(policy_of(session), "decode", lambda latents: latents * float("inf"))
    with pytest.raises(ModelError, match="the decoder of toy gives values that are infinite or not a number, for 6 of 6 inputs"):
        sample_round(session, 0)


def test_a_failure_in_another_process_is_everybodys(session_with: SessionWith) -> None:
    """Of two processes, this one makes its shard, and hears that the other could not make its own."""
    session = session_with(ONE_EACH, sampled=False)

    def share(items: Sequence[int]) -> list[int]:
        return list(items[0::2])

    def gather(mine: object) -> Iterator[object]:
        return iter([mine, NonFiniteError("as the other says")])

    session.run.__dict__["distributed"] = SimpleNamespace(size=2, leads=True, share=share, gather=gather)
    with pytest.raises(NonFiniteError, match="as the other says"):
        sample_round(session, 0)
    assert session.run.store.pictures.shards(0) == []


def test_pictures_on_fixed_noise_depend_on_stream_prompt_and_number_alone(session_with: SessionWith) -> None:
    session = session_with(ONE_EACH, sampled=False)
    many = sample_pictures(session, ["a bee", "an ant"], 3, stream="s", title="t")
    assert (many.shape, many.dtype) == ((2, 3, 4, 4, 3), np.uint8)
    alone = sample_pictures(session, ["an ant"], 2, stream="s", title="t")
    assert (alone[0] == many[1, :2]).all()
    assert (alone[0, 0] != alone[0, 1]).any(), "each has its own start"
    assert (sample_pictures(session, ["an ant"], 1, stream="other", title="t")[0, 0] != alone[0, 0]).any()
    policy_of(session).move(2.0)
    assert (sample_pictures(session, ["an ant"], 1, stream="s", title="t") == 255).all(), "the policy as it stands: white by now"


def test_a_batch_that_does_not_fit_is_halved_and_the_round_is_the_same(
    session_with: SessionWith, tmp_path_factory: pytest.TempPathFactory
) -> None:
    session = session_with()
    whole = files_of(session.run)
    shutil.move(session.run.folder.path, tmp_path_factory.mktemp("whole"))
    small = session_with(sampled=False)

    def refuse(_network: object, given: tuple[Tensor, ...]) -> None:
        if len(given[0]) > 3:
            raise RuntimeError("CUDA out of memory.")

    policy_of(small).network.register_forward_pre_hook(refuse)
    sample_round(small, 0)
    assert files_of(small.run) == whole
    assert said(small.run).count("sampling: a batch of 6 does not fit into memory; continuing with batches of 3") == 1


def test_pixels_are_rounded_and_not_cut() -> None:
    value = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    assert to_uint8(value)[0, 0, :, 0].tolist() == [0, 0, 1, 255]
    assert to_uint8(value).shape == (1, 1, 4, 3)
