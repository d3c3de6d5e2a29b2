"""`python -m benchmarks [NAME ...]` measures and prints one table. --help lists the names; the beginning of a name, such as `step_cost`, is enough."""

import argparse
import dataclasses
import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import rollout_cost, step_cost
from benchmarks.measuring import Figure

MEASUREMENTS = {
    f"{module.__name__.split('.')[-1]}.{name}": measure
    for module in (step_cost, rollout_cost)
    for name, measure in module.figures().items()
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed and memory on this machine.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure, all if left out: {', '.join(MEASUREMENTS)}")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each figure (default: 5)")
    parser.add_argument("--model", default="emoji", help="the model that is sampled and trained (default: the embedded one)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write everything measured to this file")
    arguments = parser.parse_args()
    chosen = {key: measure for key, measure in MEASUREMENTS.items() if not arguments.names or key.startswith(tuple(arguments.names))}
    strangers = [name for name in arguments.names if not any(key.startswith(name) for key in MEASUREMENTS)]
    if strangers:
        parser.error(f"there is no benchmark {strangers[0]!r}; there are {', '.join(MEASUREMENTS)}")
    torch.set_num_threads(arguments.threads)
    figures = [figure for measure in chosen.values() for figure in measure(arguments.repeats, arguments.model)]
    show(figures)
    if arguments.json:
        measured = [dataclasses.asdict(figure) | {"median": figure.median, "met": figure.met} for figure in figures]
        arguments.json.write_text(json.dumps({"machine": machine(), "figures": measured}, indent=1) + "\n")


def show(figures: list[Figure]) -> None:
    """Print the figures as a Markdown table, as in docs/benchmarks.md."""
    header = ("what", "median [min, max]", "target", "met", "medians behind it")
    rows = [header, tuple("-" * len(cell) for cell in header)]
    for figure in figures:
        values = f"{figure.median:.3f} [{min(figure.values):.3f}, {max(figure.values):.3f}]"
        rows.append((figure.what, values, f"<= {figure.target:.2f}", "yes" if figure.met else "no", figure.behind))
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    print(", ".join(f"{key} {value}" for key, value in machine().items()))


def machine() -> dict[str, str | int]:
    libraries = {name: version(name) for name in ("torch", "diffusers", "peft", "accelerate")}
    return {"CPU": _cpu(), "threads": torch.get_num_threads(), "Python": platform.python_version(), **libraries}


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in information.read_text().splitlines() if line.startswith("model name")]
        if information.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
