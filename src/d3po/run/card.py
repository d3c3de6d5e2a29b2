"""The model card of an export: what it is, how it came about, what was measured, how it is loaded."""

import json
from pathlib import Path

from d3po import __version__
from d3po.run.evaluating import label_of, read_evaluation
from d3po.run.loop import summary
from d3po.run.workbench import Workbench
from d3po.storage.files import write_atomically

SHOWN_PROMPTS = 20


def write_card(bench: Workbench, directory: Path, rounds: int, written: list[Path]) -> Path:
    """Write README.md beside what was exported."""
    config = bench.config
    prompts = bench.folder.prompts()
    heading = {"base_model": config.model, "library_name": "diffusers", "tags": ["d3po", "lora", "diffusion"]}
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in heading.items()),
        "---",
        "",
        f"# {bench.folder.path.resolve().name}",
        "",
        f"`{config.model}`, fine-tuned from comparisons of its pictures by d3po {__version__}: "
        f"{rounds} rounds, judged by {_judge(bench)}. The licence of the base model holds for it too.",
        "",
        "## What is here",
        "",
        *(f"* `{path.relative_to(directory).as_posix()}`: {_what(path)}" for path in written),
        "",
        "## Measured",
        "",
        _measured(bench, rounds),
        "",
        "## Prompts",
        "",
        f"{len(prompts)} prompts were trained on" + (", such as these:" if len(prompts) > SHOWN_PROMPTS else ":"),
        "",
        *(f"* {prompt}" for prompt in prompts[:SHOWN_PROMPTS]),
        "",
        "## Settings",
        "",
        "```toml",
        bench.folder.public_settings(),
        "```",
    ]
    path = directory / "README.md"
    write_atomically(path, "\n".join(lines) + "\n")
    return path


def _judge(bench: Workbench) -> str:
    feedback = bench.config.feedback
    judges = {"human": "people", "model": f"the vision-language model `{bench.config.judge.model}`", "imported": "imported votes"}
    return judges.get(feedback.source, f"the measured reward `{feedback.reward}`")


def _measured(bench: Workbench, rounds: int) -> str:
    if not bench.folder.evaluation(label_of(rounds)).exists():
        return "It was not evaluated."
    return f"Against the base model, on prompts it was never trained on and independent noise: {summary(read_evaluation(bench, rounds))}."


def _what(path: Path) -> str:
    if path.name == "merged" or path.name == "model.safetensors":
        return "the whole model, LoRA merged"
    if "kohya" in path.name:
        return "the LoRA in Kohya's layout, for ComfyUI and AUTOMATIC1111"
    if path.is_dir():
        return "the LoRA; load it with `peft.PeftModel.from_pretrained(network, folder)`"
    return "the LoRA; load it with `pipeline.load_lora_weights(folder)`"
