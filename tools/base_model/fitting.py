"""One small training loop for the autoencoder, the denoiser and the classifier: resumable, logged, with moving-average weights."""

import csv
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CHECKPOINT_SECONDS = 300
WARMUP_STEPS = 200
LOGGED_EVERY = 50


def fit(
    model: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    *,
    directory: Path,
    steps: int,
    learning_rate: float,
    ema_decay: float = 0.999,
    weight_decay: float = 0.01,
) -> None:
    """Minimise `loss` for `steps` updates (warm-up, then cosine to zero) and leave the averaged weights in `model`.

    Step i draws everything random from a generator seeded with i, so a run that is stopped and started again
    takes the same steps. Started again after its end, it loads the result.
    """
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint, log = directory / "checkpoint.safetensors", directory / "log.csv"
    named = dict(model.named_parameters())
    average = {name: p.detach().clone() for name, p in named.items()}
    optimizer = torch.optim.AdamW(named.values(), lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.99))
    first = _restore(checkpoint, named, average, optimizer) if checkpoint.exists() else 0
    _cut_log(log, first)
    saved_at, started = time.monotonic(), time.monotonic()
    losses: list[Tensor] = []
    for step in range(first, steps):
        value = loss(torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _rate(step, steps)
        optimizer.step()
        decay = min(ema_decay, (1 + step) / (10 + step))
        for name, p in named.items():
            average[name].lerp_(p.detach(), 1 - decay)
        losses.append(value.detach())
        if (step + 1) % LOGGED_EVERY == 0 or step + 1 == steps:
            _log(log, step + 1, float(torch.stack(losses).mean()), time.monotonic() - started)
            losses.clear()
        if time.monotonic() - saved_at > CHECKPOINT_SECONDS or step + 1 == steps:
            _save(checkpoint, named, average, optimizer, step + 1)
            saved_at = time.monotonic()
    with torch.no_grad():
        for name, p in named.items():
            p.copy_(average[name])


def averaged(directory: Path) -> dict[str, Tensor]:
    """The moving-average weights of the newest checkpoint in `directory`, by parameter name."""
    tensors = load_file(directory / "checkpoint.safetensors")
    return {key.removeprefix("average."): value for key, value in tensors.items() if key.startswith("average.")}


def _rate(step: int, steps: int) -> float:
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS))) + 1e-3


def _save(path: Path, named: Mapping[str, nn.Parameter], average: dict[str, Tensor], optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {f"model.{name}": p.detach() for name, p in named.items()}
    tensors |= {f"average.{name}": p for name, p in average.items()}
    for name, p in named.items():
        state = optimizer.state[p]
        tensors |= {f"first.{name}": state["exp_avg"], f"second.{name}": state["exp_avg_sq"]}
    temporary = path.with_suffix(".writing")
    save_file({k: v.contiguous() for k, v in tensors.items()} | {"step": torch.tensor(step)}, temporary)
    os.replace(temporary, path)


def _restore(path: Path, named: Mapping[str, nn.Parameter], average: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> int:
    tensors = load_file(path)
    step = int(tensors["step"])
    with torch.no_grad():
        for name, p in named.items():
            p.copy_(tensors[f"model.{name}"])
            average[name].copy_(tensors[f"average.{name}"])
            optimizer.state[p] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"first.{name}"].to(p),
                "exp_avg_sq": tensors[f"second.{name}"].to(p),
            }
    return step


def _cut_log(path: Path, step: int) -> None:
    """Delete what a stopped run logged after the checkpoint from which training continues."""
    if path.exists():
        header, *lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([header, *(line for line in lines if int(line.split(",")[0]) <= step)]))


def _log(path: Path, step: int, loss: float, seconds: float) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", "loss", "seconds"])
        writer.writerow([step, f"{loss:.5f}", f"{seconds:.0f}"])
