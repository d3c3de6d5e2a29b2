"""A whole run on a tiny pipeline of diffusers' real classes."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from sqlalchemy import select
from torch import Tensor

from d3po.errors import ConfigError, RunFolderError, UserError
from d3po.run.cost.plan import plan_run
from d3po.run.export.phase import export_result
from d3po.run.folder import RunFolder
from d3po.run.loop import run_rounds
from d3po.run.opened import final_checkpoints, open_run
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.run.train.dataset import load_round
from d3po.run.train.phase import train_round
from d3po.run.train.reference import References
from d3po.store.tables import ImageRow
from tests.e2e.conftest import d3po
from tests.precision import BOUND, IN_FLOAT64, assert_all_same, assert_same

MakeRun = Callable[..., RunFolder]


def opened(folder: RunFolder) -> Session:
    return Session(open_run(folder))


def finished(folder: RunFolder) -> Session:
    session = opened(folder)
    run_rounds(session)
    return session


def final_weights(folder: RunFolder) -> dict[str, Tensor]:
    tensors, _ = opened(folder).run.finals()[-1].load()
    return tensors


def policy_weights(folder: RunFolder) -> dict[str, Tensor]:
    return {name: value for name, value in final_weights(folder).items() if name.startswith("policy.")}


@pytest.mark.drawn
def test_a_run_leaves_everything_a_reader_needs(make_run: MakeRun) -> None:
    folder = make_run()
    session = finished(folder)
    page = folder.report.read_text()
    assert page.count("data:image/png") == 2 * 2 * 2
    assert page.count("<svg") == page.count("</svg>") == 2
    assert re.findall(r'\b(?:src|href)="(?!#|data:)[^"]*"|@import|url\(http', page) == [], "it needs no other file"
    base, *later = re.findall(r"<tr><td>\d</td><td>\d+</td><td>(0\.\d+|1\.000)( \[[01]\.\d+, [01]\.\d+\])?</td>", page)
    assert base == ("0.500", ""), "the base model's win rate is known"
    assert all(interval for _, interval in later)
    assert len(later) == 2
    known = next(entry for entry in session.run.store.journal.read(kind="evaluation") if entry.body["rounds"] == 0)
    assert known.body["win_rate"] == {"value": 0.5, "low": None, "high": None}
    metrics = folder.read_metrics()
    assert [(m["round"], m["update"]) for m in metrics] == [(r, u) for r in (0, 1) for u in range(8)]
    assert session.run.store.votes.count() == 2 * 4 * 3
    assert session.run.trained_rounds() == 2
    assert not list(folder.path.rglob("*.pkl"))
    assert not list(folder.path.rglob("*.pt"))


def test_training_moves_the_trained_log_ratios_apart(make_run: MakeRun) -> None:
    folder = make_run(settings=IN_FLOAT64 | {"rounds": "1"})
    finished(folder)
    first, last = folder.read_metrics()[0], folder.read_metrics()[7]
    assert (first["loss"], first["margin"]) == pytest.approx((np.log(2), 0), abs=BOUND)
    assert last["margin"] > 1e-4


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(make_run: MakeRun) -> None:
    a, b, c = (make_run(name, {"rounds": "1", "seed": seed}) for name, seed in (("a", "3"), ("b", "3"), ("c", "4")))
    for folder in (a, b, c):
        finished(folder)
    assert final_weights(a).keys() == final_weights(b).keys()
    assert all(torch.equal(value, final_weights(b)[name]) for name, value in final_weights(a).items())
    name = next(n for n in final_weights(a) if "lora_B" in n and n.startswith("policy."))
    assert not torch.equal(final_weights(a)[name], final_weights(c)[name])


def test_how_work_is_cut_does_not_change_the_result(make_run: MakeRun) -> None:
    """Into few rows at a time, and into others whose activations are computed twice."""
    ways = {
        "whole": {},
        "few": {"training.micro_batch_size": "3"},
        "other": {"training.micro_batch_size": "7", "training.gradient_checkpointing": "true"},
    }
    runs = {name: make_run(name, IN_FLOAT64 | {"rounds": "1"} | settings) for name, settings in ways.items()}
    for folder in runs.values():
        finished(folder)
    assert_all_same(policy_weights(runs["few"]), policy_weights(runs["whole"]))
    assert_all_same(policy_weights(runs["other"]), policy_weights(runs["whole"]))


def test_adapter_off_reference_is_the_pretrained_model(make_run: MakeRun) -> None:
    """The fixed reference's log-probs, computed with the adapter off, are those of an untrained policy."""
    folder = make_run(settings=IN_FLOAT64 | {"objective.reference": '"fixed"'})
    session = finished(folder)
    groups, condition = load_round(session, 1, References(start=None, moving=None))
    fresh = opened(folder)
    from d3po.training.reference import reference_steps

    for group in groups:
        per_image = condition.select(torch.full((6,), group.prompt))
        expected = reference_steps(fresh.policy, fresh.replay, group.shard, per_image, micro_batch_size=64, sizer=fresh.reference_sizer).of(
            group.indices
        )
        assert group.reference is not None
        assert_same(group.reference.log_probs, expected.log_probs)
        assert_same(group.reference.sketches, expected.sketches)


@pytest.mark.parametrize("reference", ["fixed", "ema"])
def test_other_references_run_and_resume(make_run: MakeRun, reference: str) -> None:
    folder = make_run(settings={"objective.reference": f'"{reference}"'})
    session = finished(folder)
    assert session.run.trained_rounds() == 2
    assert list(folder.path.glob("rollouts/round-001/*.reference-*.safetensors"))
    assert folder.read_metrics()[-1]["kl"] != 0


def test_full_fine_tuning_trains_every_weight(make_run: MakeRun) -> None:
    folder = make_run(settings={"adapter.method": '"full"', "training.learning_rate": "1e-4", "rounds": "1"})
    session = finished(folder)
    weights = final_weights(folder)
    assert {n.removeprefix("policy.") for n in weights if n.startswith("policy.")} == set(dict(session.policy.network.named_parameters()))


def test_averaged_weights_are_kept_and_exported(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(settings={"training.policy_ema": "0.5", "rounds": "1"})
    finished(folder)
    weights = final_weights(folder)
    name = next(n for n in weights if n.startswith("policy.") and "lora_B" in n)
    assert not torch.equal(weights[name], weights[name.replace("policy.", "average.")])
    export_result(opened(folder), tmp_path / "out")


def test_images_of_a_prompt_share_their_start_and_nothing_else(make_run: MakeRun) -> None:
    folder = make_run()
    session = opened(folder)
    sample_round(session, 0)
    shard = load_shard(session)
    start, end = shard["latents"][0].unflatten(0, (2, 3)), shard["latents"][-1].unflatten(0, (2, 3))
    assert torch.equal(start[:, 0], start[:, 1])
    assert torch.equal(start[:, 0], start[:, 2])
    assert not torch.equal(start[0], start[1])
    assert not torch.allclose(end[:, 0], end[:, 1])


def test_an_image_is_the_same_whatever_its_batch(make_run: MakeRun) -> None:
    small, large = (make_run(name, IN_FLOAT64 | {"sampling.prompts_per_shard": count}) for name, count in (("small", "1"), ("large", "4")))
    for folder in (small, large):
        sample_round(opened(folder), 0)
    ones = torch.cat([load_file(path)["latents"] for path in sorted((small.path / "rollouts/round-000").glob("*.safetensors"))], dim=1)
    assert_same(load_shard(opened(large))["latents"], ones)


def test_stored_latents_take_hardly_more_than_their_numbers(make_run: MakeRun) -> None:
    folder = make_run(settings={"sampling.steps": "20"})
    sample_round(opened(folder), 0)
    stored = sum(path.stat().st_size for path in (folder.path / "rollouts").rglob("*.safetensors"))
    latents, sketches = 21 * (4 * 4 * 4), 20 * (4 * 4 * 4)  # of so few dimensions a sketch keeps all
    assert stored <= 1.05 * 4 * 3 * (latents + sketches) * 4


def test_an_exported_lora_gives_the_same_pictures_in_plain_diffusers(
    make_run: MakeRun, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the run started from somebody's LoRA, which is exported with it."""
    query, text = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_", "text_encoder.text_model.layers.0.fc1.lora_"
    widths = {query: 8, text: 16}
    factors = {f"{name}A.weight": torch.ones(1, width) / 3 for name, width in widths.items()}
    factors |= {f"{name}B.weight": torch.ones(width, 1) / 3 for name, width in widths.items()}
    save_file(factors, tmp_path / "their.safetensors")
    start = {"adapter.start_from": str(tmp_path / "their.safetensors")}
    folder = make_run(settings=IN_FLOAT64 | {"adapter.rank": "2", "adapter.alpha": "6.0"} | start)
    session = finished(folder)
    assert "1 layers of text encoders are left out" in capsys.readouterr().out
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    condition = session.policy.encode_prompts(["a cat"])
    with torch.no_grad():
        ours = session.policy.predict(latents, torch.tensor([501]), condition, 1.0)
        written = export_result(opened(folder), tmp_path / "out")
        reloaded = StableDiffusionPipeline.from_pretrained(tiny_model, local_files_only=True, dtype=torch.float64)
        text = reloaded.encode_prompt(["a cat"], "cpu", 1, False)[0]
        untouched = reloaded.unet(latents, torch.tensor([501]), text).sample
        reloaded.load_lora_weights(str(tmp_path / "out" / "lora"))
        theirs = reloaded.unet(latents, torch.tensor([501]), text).sample
        merged = StableDiffusionPipeline.from_pretrained(tmp_path / "out" / "merged", local_files_only=True, dtype=torch.float64)
        baked = merged.unet(latents, torch.tensor([501]), text).sample
    assert all(path.exists() for path in written)
    assert "The run started from the LoRA `their.safetensors`" in written[-1].read_text()
    assert (ours - untouched).abs().max() > 1e-3
    assert_same(theirs, ours)
    assert_same(baked, ours)


def test_the_plan_counts_what_the_run_then_does(make_run: MakeRun) -> None:
    folder = make_run()
    plan = plan_run(opened(folder))
    session = finished(folder)
    assert plan.rounds * plan.pairs_per_round == session.run.store.votes.count()
    assert plan.rounds * plan.updates_per_round == len(folder.read_metrics())
    stored = sum(path.stat().st_size for path in (folder.path / "rollouts").rglob("*.safetensors"))
    assert plan.stored_bytes == pytest.approx(stored, rel=0.1)


def test_a_guard_stops_at_the_last_good_round(make_run: MakeRun) -> None:
    folder = make_run(settings={"guards.max_kl": "1e-9", "guards.action": '"stop"'})
    session = finished(folder)
    stop = json.loads((folder.path / "stopped.json").read_text())
    assert stop["kept_rounds"] == 0
    assert "guards.max_kl" in stop["reason"]
    page = folder.report.read_text()
    assert "A guard stopped this run" in page
    assert "<b>0.50</b><span>win rate over the base model</span>" in page, "the result is the base model"
    assert session.run.trained_rounds() == 0
    with pytest.raises(RunFolderError, match="no trained round"):
        export_result(opened(folder), folder.path / "out")


@pytest.mark.parametrize("name", ["d3po", "kto"])
def test_a_later_round_whose_pictures_are_all_judged_alike_is_passed_over(
    make_run: MakeRun, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a detector finds no more defects."""
    run = make_run(settings={"objective.name": name, "sampling.steps": "3", "feedback.reward": "all_alike_later:marked"})
    monkeypatch.setitem(sys.modules, "all_alike_later", ModuleType("all_alike_later"))
    monkeypatch.setattr(sys.modules["all_alike_later"], "marked", lambda image, prompt: 0.0, raising=False)
    refused = d3po("run", run.path)
    assert refused.returncode == 2
    assert "can learn nothing from it (are there votes yet" in refused.stderr
    run = make_run("other", settings={"objective.name": name, "sampling.steps": "3", "feedback.reward": "all_alike_later:marked"})
    scores = iter(range(12))  # of the base model's held-out pictures and the first round's, all different; then no more
    monkeypatch.setattr(sys.modules["all_alike_later"], "marked", lambda image, prompt: float(next(scores, 0)), raising=False)
    done = d3po("run", run.path)
    assert done.returncode == 0, done.stderr
    assert "round 1: all pictures were rated alike, so nothing is trained in this round" in done.stderr + done.stdout
    first, second = (checkpoint.load()[0] for checkpoint in final_checkpoints(run))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_stopped_run_goes_on_once_its_guards_are_changed(make_run: MakeRun) -> None:
    folder = make_run(settings={"guards.max_kl": "1e-9", "guards.action": '"stop"', "rounds": "1"})
    finished(folder)
    folder.config_path.write_text(folder.config_path.read_text().replace('action = "stop"', 'action = "warn"'))
    assert finished(folder).run.trained_rounds() == 1


def test_sampling_and_training_share_one_precision(make_run: MakeRun) -> None:
    """Under bf16 an untrained policy still scores log 2, because the sampler computes in bf16 too."""
    folder = make_run(settings={"training.mixed_precision": '"bf16"', "rounds": "1"})
    finished(folder)
    assert folder.read_metrics()[0]["loss"] == pytest.approx(np.log(2), abs=2e-3)


def test_a_round_of_ties_alone_is_refused(make_run: MakeRun) -> None:
    folder = make_run(settings={"feedback.tie_band": "10"})
    with pytest.raises(RunFolderError, match="are they all ties"):
        finished(folder)


def test_training_a_finished_round_again_does_nothing(make_run: MakeRun) -> None:
    folder = make_run(settings={"rounds": "1"})
    finished(folder)
    before = folder.metrics.read_bytes()
    train_round(opened(folder), 0)
    assert folder.metrics.read_bytes() == before


def load_shard(session: Session) -> dict[str, Tensor]:
    return load_file(session.run.folder.shard(0, 0))


def test_half_precision_shards_replay_exactly_what_was_sampled(make_run: MakeRun) -> None:
    """In float64 but for that: what is left is the rounding of log-probs to float32, as they are kept, of sums up to some hundreds."""
    folder = make_run(settings={"weights": "float64", "sampling.stored": '"float16"', "rounds": "1", "objective.log_prob": '"sum"'})
    finished(folder)
    assert folder.read_metrics()[0]["loss"] == pytest.approx(np.log(2), abs=500 * torch.finfo(torch.float32).eps)


def test_damaged_reference_log_probs_are_computed_anew(make_run: MakeRun) -> None:
    folder = make_run(settings={"objective.reference": '"fixed"'})
    session = finished(folder)
    (cache, *_) = sorted(folder.path.glob("rollouts/round-001/*.reference-*.safetensors"))
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-1] + bytes([whole[-1] ^ 0xFF]))
    load_round(session, 1, References(start=None, moving=None))
    assert cache.read_bytes() == whole


def test_tracking_that_cannot_be_had_is_said_before_any_work(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(settings={"tracking.wandb": "true"})
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"tracking\.wandb is on but wandb is not installed"):
        run_rounds(opened(folder))

    def refuse(**_: object) -> None:
        raise RuntimeError("api_key not valid: 401\nand more")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    with pytest.raises(ConfigError, match="cannot be used: api_key not valid: 401; correct the key with `wandb login`"):
        run_rounds(opened(folder))
    assert not (folder.path / "started.json").exists()
    assert not (folder.path / "images").exists()


def test_metrics_go_to_one_run_elsewhere(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, logged, ended = list[dict[str, object]](), list[int](), list[bool]()
    there = SimpleNamespace(log=lambda values, step: logged.append(step), finish=lambda: ended.append(True))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **said: begun.append(said) or there))
    session = finished(make_run(settings={"tracking.wandb": "true", "training.epochs": "1"}))
    session.close()
    assert logged == list(range(8))
    assert len(begun) == len(ended) == 1
    assert begun[0]["name"] == "run"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"sampling.steps": "1", "sampling.sampler": "euler_ancestral"},
            "sampling.steps is 1, and none of these steps is random, so a prompt's images",
        ),
        ({"sampling.steps": "1001"}, "sampling.steps is 1001, more than the 1000 timesteps"),
        ({"training.timestep_range": "[2, 99]"}, "which holds none of the 5 sampled timesteps"),
        ({"evaluation.held_out_reward": "nobody"}, "there is no reward 'nobody'"),
        ({"feedback.reward": "nobody"}, "there is no reward 'nobody'"),
        ({"feedback.source": "model", "vlm_judge.url": "http://[", "vlm_judge.model": "m"}, "vlm_judge.url must be http"),
    ],
)
def test_what_a_setting_spoils_is_said_before_any_work(make_run: MakeRun, settings: dict[str, str], message: str) -> None:
    folder = make_run(settings=settings)
    with pytest.raises(UserError, match=re.escape(message)):
        run_rounds(opened(folder))
    assert not (folder.path / "started.json").exists()
    assert not (folder.path / "images").exists()


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1])
def test_seeds_of_other_tools_are_taken(make_run: MakeRun, seed: int) -> None:
    settings = {"seed": str(seed), "rounds": "1", "sampling.prompts_per_round": "2", "training.epochs": "1", "evaluation.prompts": "1"}
    session = finished(make_run(settings=settings))
    assert session.run.trained_rounds() == 1
    with session.run.store.database.reading() as connection:
        assert set(connection.scalars(select(ImageRow.seed))) == {seed}
    session.close()
