"""A vote's way to the trainer: which groups come out of which votes, and which steps of the reference go with them."""

from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from d3po.artifacts.shards import Shard
from d3po.errors import CorruptFileError, RunFolderError
from d3po.preferences.records import Answer
from d3po.run.feedback.measured import compare_round
from d3po.run.sample.branching import branch_of
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.run.train.dataset import load_round, share_references
from d3po.run.train.reference import References, steps_of_shards
from d3po.run.train.states import save_state
from d3po.store.pictures import NewPicture
from d3po.training.data import PromptGroup, ReferenceSteps
from tests.unit.run.conftest import SessionWith, grey, said, say
from tests.unit.run.toy import STEPS, policy_of

TIE, UP, DOWN = Answer(outcome="tie"), Answer(outcome="up"), Answer(outcome="down")
NONE = References(start=None, moving=None)
HUMAN = {"feedback.source": "human"}
UNGUIDED = {"training.guided": "false"}
IMPORTED = {"feedback.source": "imported", "objective.name": "diffusion_dpo"}


def groups_of(session: Session, round: int = 0) -> list[PromptGroup]:
    return load_round(session, round, NONE)[0]


def told(group: PromptGroup) -> tuple[list[int], list[list[int]], list[float]]:
    """The indices of its images in the shard, and its pairs with their targets."""
    return group.indices.tolist(), group.pairs.tolist(), group.targets.tolist()


def later(session: Session) -> None:
    """Call the first round trained, and sample the second."""
    save_state(session, 0, 0, final=True, moving=None)
    sample_round(session, 1)


def alike(image: Image.Image, prompt: str) -> float:
    """A reward that likes all pictures as well."""
    return 0.5


def test_only_pictures_that_were_compared_are_in_their_prompts_group(session_with: SessionWith) -> None:
    session = session_with(HUMAN)
    for winner, loser in ((3, 1), (5, 4), (5, 6)):
        say(session.run, winner, loser)
    groups, condition = load_round(session, 0, NONE)
    assert [told(group) for group in groups] == [([0, 2], [[0, 1]], [0.0]), ([3, 4, 5], [[0, 1], [1, 2]], [0.0, 1.0])]
    first, second = (session.run.store.pictures.images(0)[i].prompt for i in (0, 3))
    assert [(group.prompt, group.identity) for group in groups] == [(0, first), (1, second)]
    assert all(group.weights.tolist() == [1.0] * len(group.pairs) and group.labels is None for group in groups)
    assert condition.select(torch.arange(2)).given["length"].tolist() == pytest.approx([0.05, 0.05])  # pyright: ignore[reportAttributeAccessIssue]


def test_a_prompt_of_which_nothing_was_said_has_no_group_but_its_row_in_the_condition(session_with: SessionWith) -> None:
    session = session_with(HUMAN)
    say(session.run, 5, 4)
    (group,) = groups_of(session)
    assert (group.prompt, told(group)) == (1, ([3, 4], [[0, 1]], [0.0]))


def test_a_group_reads_the_trajectories_that_end_in_its_pictures(session_with: SessionWith) -> None:
    session = session_with(HUMAN | {"sampling.prompts_per_shard": "1"})
    say(session.run, 6, 4)
    (group,) = groups_of(session)
    images = session.run.store.pictures.images(0)
    for picture, image in zip(policy_of(session).decode(group.clean()), (images[3], images[5]), strict=True):
        pixels = torch.from_numpy(np.asarray(Image.open(session.run.folder.path / image.path)).copy()).permute(2, 0, 1)
        assert torch.equal((picture * 255).round().to(torch.uint8), pixels)
    assert group.shard.path == session.run.folder.shard(0, 1)
    assert torch.equal(group.latents([STEPS])[STEPS], group.clean())


@pytest.mark.parametrize(("targets", "kept"), [("signed", [[0, 2]]), ("cross_entropy", [[0, 2], [3, 4]])])
def test_ties_are_left_out_where_they_teach_nothing(session_with: SessionWith, targets: str, kept: list[list[int]]) -> None:
    session = session_with(HUMAN | {"objective.d3po.targets": targets})
    say(session.run, 3, 1)
    say(session.run, 4, 5, answer=TIE)
    assert [group.indices.tolist() for group in groups_of(session)] == kept


def test_judges_who_disagree_make_one_pair_with_the_share_of_each_side(session_with: SessionWith) -> None:
    session = session_with(HUMAN)
    for judge, winner, loser in (("ada", 1, 2), ("bo", 1, 2), ("cy", 2, 1)):
        say(session.run, winner, loser, who=judge)
    for judge in ("ada", "bo", "cy"):
        say(session.run, 5, 4, who=judge)
    disputed, agreed = groups_of(session)
    assert 0.5 < disputed.targets.item() < 1, "more than half say the first, not all"
    assert agreed.targets.tolist() == [0.0]
    assert disputed.weights.item() > 1, "three judges weigh more than one"


def test_ties_alone_are_refused_in_the_first_round_and_passed_over_when_later_and_silence_always(session_with: SessionWith) -> None:
    session = session_with(HUMAN)
    say(session.run, 1, 2, answer=TIE)
    later(session)
    for round in (0, 1):  # of the second, nothing is said yet
        with pytest.raises(RunFolderError) as refusal:
            groups_of(session, round)
        assert str(refusal.value) == (
            f"round {round} has no comparison with a preference; d3po can learn nothing from it "
            "(are there votes yet, and are they all ties?)"
        )
    say(session.run, 7, 8, answer=TIE, round=1)
    assert groups_of(session, 1) == []


def test_where_pairs_say_nothing_the_objectives_are_named_that_could_learn_from_the_pictures(session_with: SessionWith) -> None:
    """Two that are both bad are a tie; beside a third, which is good, they are not all alike."""
    session = session_with(HUMAN)
    say(session.run, 1, 2, answer=Answer(outcome="both_bad"))
    say(session.run, 3, answer=UP)
    with pytest.raises(
        RunFolderError, match=r"d3po can learn nothing from it, but .*sft, dgpo, diffusion_nft, kto can, .* `d3po init RUN --objective kto`"
    ):
        groups_of(session)


def test_labels_of_single_pictures_are_grouped_by_prompt(session_with: SessionWith) -> None:
    """In the first prompt one of two is liked; of the second's pictures one is judged, and it is neither above nor below the prompt's mean."""
    session = session_with(HUMAN | {"feedback.ask": "thumb", "objective.name": "kto", "objective.reference": "fixed"})
    for image, answer in ((1, UP), (3, DOWN), (5, UP)):
        say(session.run, image, answer=answer)
    first, second = groups_of(session)
    assert first.labels is not None
    assert second.labels is not None
    assert (first.indices.tolist(), first.labels.values.tolist(), first.labels.signs.tolist()) == ([0, 2], [1, -1], [1, -1])
    assert (second.indices.tolist(), second.labels.values.tolist(), second.labels.signs.tolist()) == ([4], [1], [0])
    assert first.labels.weights.tolist() == [1.0, 1.0]
    assert [group.pairs.tolist() for group in (first, second)] == [[], []]
    assert [group.reference for group in (first, second)] == [None, None], "pictures have no steps"


def test_pictures_that_are_all_liked_alike_are_refused_in_the_first_round_and_passed_over_when_later(session_with: SessionWith) -> None:
    session = session_with({"objective.name": "ddpo", "feedback.reward": "tests.unit.run.test_train_dataset:alike"})
    with pytest.raises(RunFolderError, match=r"round 0 has 6 labels, from 0\.5 to 0\.5; ddpo can learn nothing from it"):
        groups_of(session)
    later(session)
    assert groups_of(session, 1) == []


@pytest.mark.parametrize(
    ("damage", "words"), [("changed", r"is damaged: its SHA-256 is not the [0-9a-f]{12}\.\.\."), ("gone", "cannot be read")]
)
def test_a_damaged_shard_is_named_with_the_remedy(session_with: SessionWith, damage: str, words: str) -> None:
    session = session_with(HUMAN)
    say(session.run, 2, 1)
    path = session.run.folder.shard(0, 0)
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptFileError, match=rf"rollout shard .*shard-000\.safetensors {words}.*`d3po sample RUN --repair`"):
        groups_of(session)


def test_images_that_branch_are_trained_in_the_step_in_which_they_part(session_with: SessionWith) -> None:
    session = session_with({"objective.name": "d3po_branch", "sampling.branch": "true", "seed": "4"})
    compare_round(session.run, 0)
    for group in groups_of(session):
        assert group.branch == branch_of(session, 0, group.identity)
        assert group.branch is not None
        before, after = group.latents([group.branch])[group.branch], group.latents([group.branch + 1])[group.branch + 1]
        assert torch.equal(before[0], before[1])
        assert not torch.equal(after[0], after[1])


def imported(session: Session, prompts: dict[str, list[int]]) -> list[int]:
    """Grey pictures from elsewhere; their ids."""
    run, ids = session.run, []
    for prompt, greys in prompts.items():
        (number,) = run.store.pictures.add_prompts([prompt])
        files = [grey(run, f"{prompt}-{value}", value) for value in greys]
        pictures = [NewPicture(prompt=number, number=i, path=path, sha256=digest) for i, (path, digest) in enumerate(files)]
        ids += run.store.pictures.add_pictures(series="mine", origin="imported", model="", policy="", seed=None, pictures=pictures)
    return ids


def test_imported_pictures_are_learnt_from_as_they_are(session_with: SessionWith) -> None:
    session = session_with(IMPORTED, sampled=False)
    dark, bright, *_ = imported(session, {"a fox": [51, 204, 0], "a bee": [1, 2]})
    say(session.run, bright, dark, round=None)
    say(session.run, 4, 5, round=None)
    (group,) = groups_of(session)
    assert told(group) == ([0, 1], [[0, 1]], [0.0])
    assert torch.allclose(group.clean()[:, 0, 0, 0], torch.tensor([-0.6, 0.6])), "2 * 51 / 255 - 1 and 2 * 204 / 255 - 1"
    assert group.reference is None
    assert "1 imported votes are on held-out prompts, so they are left out of training" in said(session.run)


@pytest.mark.parametrize(("pictures", "but"), [({}, ""), ({"a bee": [1, 2]}, ", except for held-out prompts")])
def test_without_imported_pictures_it_is_said_how_to_bring_some(
    session_with: SessionWith, pictures: dict[str, list[int]], but: str
) -> None:
    session = session_with(IMPORTED, sampled=False)
    ids = imported(session, pictures)
    if ids:
        say(session.run, *ids, round=None)
    with pytest.raises(RunFolderError, match=rf"no picture was imported{but}; import some with `d3po votes import .*run FILE --format"):
        groups_of(session)


def whole(session: Session, references: References = NONE, round: int = 1) -> ReferenceSteps:
    """The reference's steps of the first round's only shard, as a later round asks for them."""
    shard = Shard(path=session.run.folder.shard(0, 0))
    prompts = [image.prompt for image in session.run.store.pictures.images(0)]
    return steps_of_shards(session, round, {shard: list(range(6))}, session.encode_prompts(prompts), references)[shard]


def same(steps: ReferenceSteps, log_probs: Tensor) -> bool:
    return torch.allclose(steps.log_probs, log_probs, atol=1e-5, equal_nan=True)


def weights(shift: float) -> dict[str, Tensor]:
    return {"shift": torch.full((3,), shift)}


def test_where_the_sampler_is_the_reference_its_own_steps_are_taken(session_with: SessionWith) -> None:
    session = session_with()
    forwards = policy_of(session).network.forwards
    shard = Shard(path=session.run.folder.shard(0, 0))
    sampled = shard.sketches()
    assert sampled is not None
    for steps in (whole(session), whole(session, round=0)):
        assert torch.equal(steps.log_probs.nan_to_num(), shard.log_probs().nan_to_num())
        assert torch.equal(steps.sketches, sampled)
    assert policy_of(session).network.forwards == forwards
    assert sorted(shard.path.parent.iterdir()) == [shard.path]


@pytest.mark.parametrize(
    ("settings", "references"),
    [
        ({"objective.reference": "fixed"}, References(start=weights(7.0), moving=None)),
        ({"objective.reference": "ema"}, References(start=weights(7.0), moving=weights(0.0))),
        (UNGUIDED, References(start=weights(0.05), moving=None)),
    ],
)
def test_the_reference_is_the_policy_that_the_settings_name(
    session_with: SessionWith, settings: dict[str, str], references: References
) -> None:
    """The round was sampled by the untrained model, which each of these names, whatever the policy has become.

    The third comes to the same: without guidance a prompt of 5 letters tells 0.05 less, which is what its weights add.
    """
    session = session_with(settings)
    policy_of(session).move(0.25)
    steps = whole(session, references)
    assert same(steps, Shard(path=session.run.folder.shard(0, 0)).log_probs())
    assert policy_of(session).state()["shift"].tolist() == [0.25] * 3, "the policy goes on as it was"


@pytest.mark.parametrize(
    ("settings", "references", "higher"),
    [
        ({"objective.reference": "ema"}, References(start=None, moving=weights(0.5)), 0.5),
        (UNGUIDED, References(start=weights(0.0), moving=None), -0.05),
    ],
)
def test_another_reference_than_the_sampler_scores_the_same_steps_otherwise(
    session_with: SessionWith, settings: dict[str, str], references: References, higher: float
) -> None:
    """A reference that expects x_0 higher by d has a mean higher by d times the step's slope: its sketch says so, pixel by pixel."""
    session = session_with(settings)
    steps, shard = whole(session, references), Shard(path=session.run.folder.shard(0, 0))
    sampled = shard.sketches()
    assert sampled is not None
    slope = session.replay.transition.slope(session.replay.grid.timesteps, session.replay.grid.previous)
    trained = slice(0, STEPS - 1)
    assert torch.allclose(steps.sketches[trained] - sampled[trained], higher * slope[trained, None, None].expand(-1, 6, 48), atol=1e-5)
    assert not torch.isclose(steps.log_probs[trained], shard.log_probs()[trained], atol=1e-5).any()
    assert steps.log_probs[STEPS - 1].isnan().all()


def test_an_objective_that_reads_the_sampler_compares_with_it_whatever_is_chosen(session_with: SessionWith) -> None:
    session = session_with({"objective.name": "ddpo", "objective.reference": "fixed"})
    forwards = policy_of(session).network.forwards
    policy_of(session).move(0.25)
    assert same(whole(session), Shard(path=session.run.folder.shard(0, 0)).log_probs())
    assert policy_of(session).network.forwards == forwards


def test_the_references_steps_are_kept_and_made_anew_where_their_bytes_have_changed(session_with: SessionWith) -> None:
    session = session_with({"objective.reference": "fixed"})
    steps, network = whole(session), policy_of(session).network
    (kept,) = session.run.folder.shard(0, 0).parent.glob("shard-000.reference-*.safetensors")
    content, forwards = kept.read_bytes(), network.forwards
    assert same(whole(session), steps.log_probs)
    assert network.forwards == forwards, "read from the file"
    kept.write_bytes(content[:-1] + b"?")
    assert same(whole(session), steps.log_probs)
    assert network.forwards == forwards + 6 * (STEPS - 1)
    assert kept.read_bytes() == content


def test_kept_steps_of_a_version_without_sketches_are_made_anew(session_with: SessionWith) -> None:
    session = session_with({"objective.reference": "fixed"})
    older = session.run.folder.path / "older.safetensors"
    save_file({"log_probs": torch.zeros(STEPS, 6)}, older)
    shard = session.run.folder.shard(0, 0)
    older.rename(shard.with_suffix(f".reference-{sha256(older.read_bytes()).hexdigest()[:16]}.safetensors"))
    assert same(whole(session), Shard(path=shard).log_probs())


def without_sketches(session: Session) -> None:
    """Leave the shard as an earlier version wrote it."""
    shard = Shard(path=session.run.folder.shard(0, 0))
    save_file({"latents": torch.stack([shard.latents(step) for step in range(STEPS + 1)]), "log_probs": shard.log_probs()}, shard.path)


def test_a_shard_of_an_earlier_version_is_refused_where_no_copy_of_the_model_is_left(session_with: SessionWith) -> None:
    session = session_with({"adapter.method": "full"})
    without_sketches(session)
    with pytest.raises(RunFolderError, match=r"shard-000\.safetensors was sampled by an earlier version.*start a new run folder"):
        whole(session, round=0)


def test_a_shard_of_an_earlier_version_is_replayed_where_the_adapter_can_be_switched_off(session_with: SessionWith) -> None:
    session = session_with({"objective.reference": "fixed"})
    without_sketches(session)
    assert same(whole(session, round=0), Shard(path=session.run.folder.shard(0, 0)).log_probs())


def test_objectives_on_pictures_need_no_steps(session_with: SessionWith) -> None:
    session = session_with({"objective.name": "sft"})
    shard = Shard(path=session.run.folder.shard(0, 0))
    assert steps_of_shards(session, 0, {shard: [0]}, session.encode_prompts(["a cat"]), NONE) == {}


def test_each_process_keeps_the_references_steps_of_its_share(session_with: SessionWith) -> None:
    session = session_with({"objective.reference": "fixed", "sampling.prompts_per_shard": "1"})

    def kept() -> list[str]:
        return sorted(path.name[:19] for path in session.run.folder.shard(1, 0).parent.glob("*.reference-*"))

    later(session)
    share_references(session, 1, NONE)
    assert kept() == [], "a single process makes them when it needs them"
    second = SimpleNamespace(size=2, leads=True, share=lambda items: items[1::2], gather=lambda item: [item, item])
    session.run.__dict__["distributed"] = second
    share_references(session, 1, NONE)
    assert kept() == ["shard-001.reference"]
