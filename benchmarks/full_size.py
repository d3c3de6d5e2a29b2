"""A full-size model on this machine: `python -m benchmarks.full_size sd15 --size 256`.

Builds Stable Diffusion 1.5 or XL in the real size with random weights, makes the plan of a run of one update (as `d3po run --dry-run` does), makes that run
(sample, compare, train) in a separate process, and then times updates against the network's forward and backward pass alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.full_models import save
from d3po.config import RunConfig, override
from d3po.progress import Narrator
from d3po.run.cost.plan import plan_run
from d3po.run.cost.probe import peak_bytes
from d3po.run.feedback.measured import compare_round
from d3po.run.folder import RunFolder, create_run
from d3po.run.opened import open_run
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.run.train.dataset import References, load_round
from d3po.run.train.phase import train_round
from d3po.training.data import PromptGroup, step_batch

SETTINGS = {
    "rounds": "1",
    "sampling.images_per_prompt": "2",
    "sampling.prompts_per_round": "1",
    "sampling.prompts_per_shard": "1",
    "objective.d3po.clip": "none",
    "evaluation.prompts": "1",
    "evaluation.images_per_prompt": "2",
    "tracking.tensorboard": "false",
}
GIB = 2**30
Report = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size", description=__doc__)
    parser.add_argument("model", choices=["sd15", "sdxl"])
    parser.add_argument("--size", type=int, default=256, help="side of the pictures in pixels (default: 256)")
    parser.add_argument("--repeats", type=int, default=5, help="updates timed against the bare network (default: 5)")
    parser.add_argument("--store", type=Path, default=Path("build/full-size"), help="where the random models are kept")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting of the run. Repeatable")
    arguments = parser.parse_args()
    model = arguments.store / arguments.model
    child("build", arguments.model, str(model))
    settings = {"model": str(model), "sampling.width": str(arguments.size), "sampling.height": str(arguments.size)}
    config = override(
        override(RunConfig(), SETTINGS | settings, where="settings"), dict(pair.split("=", 1) for pair in arguments.set), where="--set"
    )
    with tempfile.TemporaryDirectory(prefix="d3po-full-size-", dir=arguments.store) as directory:
        folder = create_run(Path(directory) / "run", config, prompts=["a cat"], held_out=["a dog"])
        planned, measured = child("plan", str(folder.path)), child("run", str(folder.path), str(arguments.repeats))
    print(json.dumps({"model": arguments.model, "size": arguments.size, "planned": planned, "measured": measured}, indent=1))


def child(*arguments: str) -> Report:
    """Run `work` in a separate process, so that its peak memory is measured separately, and return the report that it prints last."""
    output = subprocess.run(
        [sys.executable, "-c", "from benchmarks.full_size import work; work()", *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return json.loads(output.splitlines()[-1])


def work() -> None:
    """The work of a child process: the part named by its first argument."""
    torch.set_num_threads(1)
    name, *rest = sys.argv[1:]
    report = {"build": build, "plan": plan, "run": run}[name](*rest)
    print(json.dumps(report))


def build(name: str, directory: str) -> Report:
    save(name, Path(directory))
    return {}


def plan(path: str) -> Report:
    """The plan that `d3po run --dry-run` prints."""
    planned = plan_run(opened(path))
    return {"peak_gib": planned.peak_bytes / GIB, "minutes": planned.seconds / 60, "lines": planned.lines()}


def run(path: str, repeats: str) -> Report:
    """Sample, compare and train one round, then time updates."""
    session = opened(path)
    phases = {
        "load": lambda: session.policy,
        "sample": lambda: sample_round(session, 0),
        "compare": lambda: compare_round(session.run, 0),
        "train": lambda: train_round(session, 0),
    }
    report: Report = {name: timed(phase) for name, phase in phases.items()}
    report["peak_gib"] = report["train"]["peak_gib"]
    network = session.policy.network
    report["parameters"] = sum(weight.numel() for weight in network.parameters())
    report["trained"] = sum(weight.numel() for weight in session.policy.trainable().values())
    report["metrics"] = session.run.folder.read_metrics()[0]
    groups, condition = load_round(session, 0, References(start=None, moving=None))
    step = torch.tensor([len(session.replay.grid) // 2])
    ours, bare = interleaved_cpu(
        lambda: session.trainer.update(groups, condition, step), bare_pass(session, groups, condition, step), int(repeats)
    )
    report["update"] = spread(ours) | {"forwards": len(groups[0]) * guided(session)}
    report["bare"] = spread(bare)
    report["overhead"] = spread([a / b - 1 for a, b in zip(ours, bare, strict=True)])
    return report


def opened(path: str) -> Session:
    folder = RunFolder(path=Path(path))
    return Session(open_run(folder, Narrator(Console(quiet=True))))


def guided(session: Session) -> int:
    return 1 if session.run.config.sampling.guidance == 1 else session.policy.guided_forwards


def bare_pass(session: Session, groups: Sequence[PromptGroup], condition: Any, step: torch.Tensor) -> Callable[[], None]:
    """A function that makes only the forward and backward pass of the network, on the inputs that an update gives it."""
    policy: Any = session.policy
    batch, (group,) = step_batch(groups, step), groups
    inputs = batch.x_t.flatten(0, 1).repeat(guided(session), 1, 1, 1)
    times = session.replay.grid.timesteps[step].expand(len(inputs))
    per_image = condition.select(torch.full((len(group),), group.prompt))
    given = per_image.with_negatives(len(group)) if guided(session) == 2 else per_image.given

    def once() -> None:
        output = policy._called(inputs, times, given, torch.ones(len(inputs)))
        output.backward(torch.full_like(output, 1e-6))
        policy.network.zero_grad()

    return once


def interleaved_cpu(ours: Callable[[], object], bare: Callable[[], object], repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of processor time of each, called in turn after one unmeasured call of both. Other processes' work does not count."""
    ours()
    bare()
    pairs = [(cpu_seconds(ours), cpu_seconds(bare)) for _ in range(repeats)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def cpu_seconds(action: Callable[[], object]) -> float:
    started = time.process_time()
    action()
    return time.process_time() - started


def timed(phase: Callable[[], object]) -> Report:
    started, cpu = time.perf_counter(), time.process_time()
    phase()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu, "peak_gib": peak_bytes() / GIB}


def spread(values: list[float]) -> Report:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


if __name__ == "__main__":
    main()
