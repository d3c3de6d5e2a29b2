"""Every objective through a whole run: sampled or imported pictures in, weights that have moved out."""

import json
import math
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from d3po.artifacts.checkpoints import list_checkpoints
from d3po.artifacts.shards import Shard
from d3po.errors import CorruptFileError, RunFolderError
from d3po.objective_settings import ObjectiveName
from d3po.objectives.registry import OBJECTIVES
from d3po.run.feedback.labels import judgements_learnt_from
from d3po.run.feedback.measured import compare_round
from d3po.run.folder import RunFolder
from d3po.run.opened import open_run
from d3po.run.sample.branching import branch_of
from d3po.run.sample.phase import sample_round, to_uint8
from d3po.run.session import Session
from d3po.run.starting import settings_for_objective
from d3po.run.train.dataset import load_round
from d3po.run.train.reference import References
from tests.e2e.conftest import PROMPTS, d3po
from tests.precision import BOUND, IN_FLOAT64, assert_all_same
from tests.tiny import save_tiny

MakeRun = Callable[..., RunFolder]
SMALL = {
    "rounds": "1",
    "sampling.prompts_per_round": "2",
    "evaluation.prompts": "1",
    "training.epochs": "1",
    "training.prompts_per_update": "2",
}


def trained(run: RunFolder) -> dict[str, torch.Tensor]:
    tensors, _ = list_checkpoints(run.checkpoints)[-1].load()
    return tensors


def flow_model(directory: Path) -> dict[str, str]:
    return {"model": str(save_tiny("sd3", directory)), "adapter.targets": "attention", "sampling.steps": "3"}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run_trains_by_it(make_run: MakeRun, name: ObjectiveName, tmp_path: Path) -> None:
    run = make_run(settings=SMALL | settings_for_objective(name) | (flow_model(tmp_path / "flow") if name == "flow_dpo" else {}))
    done = d3po("run", run.path)
    assert done.returncode == 0, done.stderr
    (line,) = run.read_metrics()
    assert line["gradient_norm"] > 0
    assert any(tensor.abs().sum() > 0 for key, tensor in trained(run).items() if key.startswith("policy.") and "lora_B" in key)
    assert run.report.exists()


@pytest.mark.parametrize("name", ["kto", "dgpo", "d3po_branch"])
def test_how_rows_are_cut_into_calls_does_not_change_the_result(make_run: MakeRun, name: ObjectiveName) -> None:
    runs = [
        make_run(str(rows), SMALL | IN_FLOAT64 | settings_for_objective(name) | {"training.micro_batch_size": str(rows)})
        for rows in (3, 64)
    ]
    for run in runs:
        assert d3po("run", run.path).returncode == 0
    cut, whole = ({key: value for key, value in trained(run).items() if key.startswith("policy.")} for run in runs)
    assert_all_same(cut, whole)


def test_a_killed_run_on_pictures_alone_goes_on_as_if_nothing_had_happened(make_run: MakeRun) -> None:
    settings = SMALL | settings_for_objective("diffusion_dpo") | {"rounds": "2", "objective.reference": "per_round", "training.epochs": "2"}
    whole, killed = (make_run(name, settings | {"training.checkpoint_every": "1"}) for name in ("whole", "killed"))
    for run in (whole, killed):
        assert d3po("run", run.path).returncode == 0
    for checkpoint in list_checkpoints(killed.checkpoints):
        if (checkpoint.round, checkpoint.final) == (1, True):
            checkpoint.path.unlink()
    assert d3po("run", killed.path).returncode == 0
    once, twice = trained(whole), trained(killed)
    assert all(torch.equal(once[key], twice[key]) for key in once)


@pytest.mark.parametrize(("name", "targets", "pairs"), [("d3po", "signed", 21), ("d3po", "cross_entropy", 24), ("diffusion_dpo", None, 24)])
def test_ties_are_left_out_by_signed_d3po_alone(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, name: ObjectiveName, targets: str | None, pairs: int
) -> None:
    """Four prompts of four pictures, the last two of which tie in three prompts."""
    scores = iter([0.0, 1.0, 2.0, 2.0] * 3 + [0.0, 1.0, 2.0, 3.0])
    monkeypatch.setitem(sys.modules, "some_tie", ModuleType("some_tie"))
    monkeypatch.setattr(sys.modules["some_tie"], "score", lambda image, prompt: next(scores), raising=False)
    settings = {
        "sampling.images_per_prompt": "4",
        "sampling.steps": "2",
        "feedback.reward": "some_tie:score",
        **({f"objective.{name}.targets": targets} if targets else {}),
    }
    run = make_run(settings=settings_for_objective(name) | settings)
    session = Session(open_run(run))
    sample_round(session, 0)
    compare_round(session.run, 0)
    groups, _ = load_round(session, 0, References(start=None, moving=None))
    assert sum(len(group.targets) for group in groups) == pairs
    session.close()


def test_images_that_branch_share_their_way_and_then_part(make_run: MakeRun) -> None:
    run = make_run(settings=SMALL | settings_for_objective("d3po_branch"))
    assert d3po("sample", run.path).returncode == 0
    session = Session(open_run(run))
    (record,) = session.run.store.pictures.shards(0)
    shard = Shard(path=run.path / record.path)
    for start, prompt in ((0, 0), (3, 1)):
        images = session.run.store.pictures.images(0)[start : start + 3]
        branch = branch_of(session, 0, images[0].prompt)
        assert branch is not None, prompt
        together = [bool((shard.latents(t)[start : start + 3] == shard.latents(t)[start]).all()) for t in range(6)]
        assert together == [t <= branch for t in range(6)]
    session.close()


def test_what_is_judged_can_be_what_the_network_expects_after_the_step_in_which_images_part(make_run: MakeRun) -> None:
    settings = {"sampling.judged": "expected", "sampling.prompts_per_round": "6", "sampling.steps": "3"}
    run = make_run(settings=SMALL | settings_for_objective("d3po_branch") | settings)
    session = Session(open_run(run))
    sample_round(session, 0)
    replay, finished = session.replay, []
    for record in session.run.store.pictures.shards(0):
        shard = Shard(path=run.path / record.path)
        for row, image in enumerate([image for image in session.run.store.pictures.images(0) if image.shard_id == record.id]):
            branch = branch_of(session, 0, image.prompt)
            assert branch is not None
            latent = shard.latents(branch + 1)[row : row + 1]
            finished.append(branch + 1 == len(replay.grid))
            if not finished[-1]:
                condition = session.policy.encode_prompts([image.prompt])
                latent = replay.step(session.policy, latent[None], torch.tensor([branch + 1]), condition).expected
            pixels = np.asarray(Image.open(run.path / image.path), dtype=int)
            assert np.abs(to_uint8(session.policy.decode(latent))[0] - pixels).max() <= 1
    assert set(finished) == {True, False}  # past the last step there is nothing left to expect
    session.close()


def test_pictures_that_somebody_already_has_are_trained_on(make_run: MakeRun, tmp_path: Path) -> None:
    """Sampled by one run, brought into another by a file, as pictures from anywhere would be."""
    giver = make_run("giver", SMALL)
    assert d3po("sample", giver.path).returncode == 0
    pictures = sorted(giver.images("round-000").glob("*.png"))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(
            json.dumps({"prompt": "a cat", "chosen": str(a), "rejected": str(b)}) + "\n"
            for a, b in zip(pictures[:3], pictures[3:], strict=True)
        )
    )
    run = make_run("taker", SMALL | IN_FLOAT64 | settings_for_objective("diffusion_dpo") | {"feedback.source": "imported"})
    empty = d3po("run", run.path)
    assert empty.returncode == 2
    assert "no picture was imported" in empty.stderr
    assert d3po("votes", "import", run.path, pairs, "--format", "jsonl_pairs").returncode == 0
    done = d3po("run", run.path)
    assert done.returncode == 0, done.stderr
    (latents,) = (run.path / "encoded").glob("*.safetensors")
    assert load_file(latents)["latents"].shape[:2] == (1, 6)
    whole = latents.read_bytes()
    latents.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    session = Session(open_run(run))
    load_round(session, 0, References(start=None, moving=None))
    assert latents.read_bytes() == whole, "damaged latents are encoded anew"
    latents.unlink()
    picture = run.path / session.run.store.pictures.imported()[0].path
    picture.write_bytes(pictures[-1].read_bytes())
    with pytest.raises(CorruptFileError, match=f"{picture} is not what was written: .*import it again"):
        load_round(session, 0, References(start=None, moving=None))
    session.close()
    (line,) = run.read_metrics()
    assert line["loss"] == pytest.approx(math.log(2), abs=BOUND)
    assert not (run.path / "rollouts").exists()


@pytest.mark.parametrize(
    ("name", "likes", "said"),
    [
        ("sft", (True, True), ""),
        ("kto", (True, False), ""),
        ("diffusion_dpo", (True, False), "can learn nothing from it, but reward_weighted, sft, diffusion_nft, kto can"),
        ("dgpo", (True, False), "dgpo can learn nothing from it, but reward_weighted, sft, diffusion_nft, kto can"),
        (
            "kto",
            (True, True),
            "2 labels, from 1 to 1; kto can learn nothing from it, but sft can, which learn from single pictures: begin a run with",
        ),
        ("sft", (False, False), "from -1 to -1; sft can learn nothing from it (are there votes yet"),
    ],
)
def test_likes_of_one_picture_a_prompt_teach_what_reads_them(
    make_run: MakeRun, tmp_path: Path, name: ObjectiveName, likes: tuple[bool, bool], said: str
) -> None:
    run = make_run(settings=settings_for_objective(name) | {"feedback.source": "imported"})
    rows = ["image,prompt,like"]
    for number, like in enumerate(likes):
        Image.new("RGB", (8, 8), (100 * number, 0, 200)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{PROMPTS[number]},{str(like).lower()}")
    (tmp_path / "likes.csv").write_text("\n".join(rows))
    assert d3po("votes", "import", run.path, tmp_path / "likes.csv", "--format", "likes_csv").returncode == 0
    session = Session(open_run(run))
    with pytest.raises(RunFolderError, match=re.escape(said)) if said else nullcontext():
        assert len(load_round(session, 0, References(start=None, moving=None))[0]) == 2
    session.close()


def test_imported_votes_on_prompts_that_are_held_out_since_are_not_trained_on(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(settings=settings_for_objective("diffusion_dpo") | {"feedback.source": "imported"})
    for number in range(2):
        Image.new("RGB", (8, 8), (100 * number, 0, 200)).save(tmp_path / f"{number}.png")
    pairs = [{"prompt": prompt, "chosen": "0.png", "rejected": "1.png"} for prompt in ("a whale", "a seal", "a crab")]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    assert d3po("votes", "import", run.path, tmp_path / "pairs.jsonl", "--format", "jsonl_pairs").returncode == 0
    (run.path / "held_out.txt").write_text("A  Whale\nthe sea\n")
    capsys.readouterr()
    session = Session(open_run(run))
    groups, _ = load_round(session, 0, References(start=None, moving=None))
    assert [group.identity for group in groups] == ["a seal", "a crab"]
    assert "1 imported votes are on held-out prompts" in capsys.readouterr().out
    assert judgements_learnt_from(session.run, 0) == 2
    session.close()
    (run.path / "held_out.txt").write_text("A  Whale\nA SEAL\na crab\n")
    refused = d3po("run", run.path)
    assert "no picture was imported, except for held-out prompts" in refused.stderr


def test_an_objective_for_flow_models_is_refused_for_others(make_run: MakeRun) -> None:
    refused = d3po("run", make_run(settings=SMALL | settings_for_objective("flow_dpo")).path)
    assert refused.returncode == 2
    assert "set it to 'diffusion_dpo'" in refused.stderr


def test_the_unguided_loss_recomputes_the_samplers_log_probs(make_run: MakeRun) -> None:
    run = make_run(settings=SMALL | IN_FLOAT64 | {"training.guided": "false"})
    assert d3po("run", run.path).returncode == 0
    (line,) = run.read_metrics()
    assert line["kl"] == pytest.approx(0, abs=BOUND), "the first update of a round, against its own sampler"
