"""Writes the model card of an export: what it is, how it was made, what was measured, and how it is loaded."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from d3po.artifacts.files import write_atomically
from d3po.embedded import EMBEDDED
from d3po.escaping import markdown_block, markdown_code, markdown_text
from d3po.models.families import CUSTOM
from d3po.preferences.conversion import comparisons_of
from d3po.preferences.records import AnnotatorKind, Vote
from d3po.run.evaluate.phase import read_evaluation
from d3po.run.feedback.blind import blind_result, people_say
from d3po.run.feedback.labels import judgements_learnt_from, votes_learnt_from
from d3po.run.folder import label_of, without_parents
from d3po.run.loop import summary
from d3po.run.opened import OpenRun
from d3po.version import __version__

SHOWN_PROMPTS = 20
ANNOTATORS = {"human": ("person", "people"), "model": ("model", "models"), "rule": ("measured reward", "measured rewards")}
"""Words for each kind of annotator, in the singular and the plural."""


def write_card(run: OpenRun, directory: Path, rounds: int, written: list[Path]) -> Path:
    """Write README.md beside what was exported."""
    config = run.config
    prompts = run.folder.prompts()
    lines = [
        *front_matter(config.model),
        "",
        f"# {markdown_text(run.folder.path.resolve().name)}",
        "",
        f"{_model(config.model)}, fine-tuned from comparisons of its pictures by d3po {__version__}: "
        f"{rounds} rounds, compared by {_annotators(run)}. The licence of the base model applies to it too.{_start(run)}",
        "",
        "## Files",
        "",
        *(f"* {markdown_code(path.relative_to(directory).as_posix())}: {_what(path)}" for path in written),
        "",
        "## Labels",
        "",
        _labels(run, rounds),
        "",
        *(["## Blind test", "", _said_by_people(run, rounds), ""] if run.judged_by_people else []),
        "## Evaluation",
        "",
        _measured(run, rounds),
        "",
        "## Prompts",
        "",
        f"It was trained on {len(prompts)} prompts" + (", such as these:" if len(prompts) > SHOWN_PROMPTS else ":"),
        "",
        *(f"* {markdown_code(prompt)}" for prompt in prompts[:SHOWN_PROMPTS]),
        "",
        "## Settings",
        "",
        markdown_block(run.folder.public_settings(), "toml"),
    ]
    path = directory / "README.md"
    write_atomically(path, "\n".join(lines) + "\n")
    return path


def front_matter(model: str) -> list[str]:
    """The YAML heading that the hub reads. It names the base model only if that is on the hub, because the hub refuses any other name."""
    base = {"base_model": model} if is_hub_id(model) else {}
    heading = {**base, "library_name": "diffusers", "tags": ["d3po", "lora", "diffusion"]}
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in heading.items()), "---"]


def is_hub_id(model: str) -> bool:
    """Whether a run's model is the name of a model on the hub, OWNER/NAME, and not a path on this machine."""
    if model in EMBEDDED or model.startswith(CUSTOM) or model.count("/") != 1 or Path(model).exists():
        return False
    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return True


def _model(model: str) -> str:
    """Describe the base model. A path on this machine is shortened to its last component."""
    if model in EMBEDDED:
        return f"The small model {markdown_code(model)} that comes with d3po"
    if is_hub_id(model) or model.startswith(CUSTOM):
        return markdown_code(model)
    return f"A model that is not on the hub, {markdown_code(Path(model).name)}"


def _start(run: OpenRun) -> str:
    lora = run.config.adapter.start_from
    return (
        f" The run started from the LoRA {markdown_code(Path(lora).name)}, which these files contain and whose licence applies too."
        if lora
        else ""
    )


def _labels(run: OpenRun, rounds: int) -> str:
    votes = votes_learnt_from(run, rounds)
    if not votes:
        return f"{sum(judgements_learnt_from(run, round) for round in range(rounds))} pictures, each with its measured reward."
    return in_words(votes, {annotator.id: annotator.kind for annotator in run.store.people.annotators()})


def in_words(votes: list[Vote], kinds: Mapping[int, AnnotatorKind]) -> str:
    """Describe the votes that a policy was trained on, and how many annotators gave them. `kinds` has the kind of each annotator by id."""
    counts = Counter(kinds[annotator] for annotator in {vote.annotator for vote in votes})
    annotators = " and ".join(f"{count} {ANNOTATORS[kind][count > 1]}" for kind, count in sorted(counts.items()))
    outcomes = Counter(vote.answer.outcome for vote in votes)
    return (
        f"{len(votes)} answers by {annotators}, from which {len(comparisons_of(votes))} comparisons of two pictures follow. Of the answers "
        f"{outcomes['tie']} were ties, {outcomes['both_bad']} said that all were bad, and {outcomes['skip'] + outcomes['flag']} were skips or flags."
    )


def _annotators(run: OpenRun) -> str:
    feedback = run.config.feedback
    sources = {
        "human": "people",
        "model": f"the vision-language model {markdown_code(run.config.vlm_judge.model)}",
        "imported": "imported votes",
    }
    return sources.get(feedback.source, f"the measured reward {markdown_code(without_parents(feedback.reward))}")


def _said_by_people(run: OpenRun, rounds: int) -> str:
    people, answers = blind_result(run, rounds) or (None, 0)
    shown = "Shown pictures of both side by side, of prompts it was never trained on, and not told which is which, "
    words = people_say(people, answers)
    return f"{shown}{words}." if people else f"{words[0].upper()}{words[1:]}."


def _measured(run: OpenRun, rounds: int) -> str:
    if not run.folder.evaluation(label_of(rounds)).exists():
        return "It was not evaluated."
    by = f"Measured by {markdown_code(without_parents(run.config.feedback.reward))}, compared" if run.judged_by_people else "Compared"
    return f"{by} with the base model on held-out prompts, from independent noise: {summary(read_evaluation(run, rounds))}."


def _what(path: Path) -> str:
    if path.name == "merged" or path.name == "model.safetensors":
        return "the whole model, with the LoRA merged into it"
    if "kohya" in path.name:
        return "the LoRA in Kohya's format, for ComfyUI and other tools"
    if path.is_dir():
        return "the LoRA; load it with `peft.PeftModel.from_pretrained(network, folder)`"
    return "the LoRA; load it with `pipeline.load_lora_weights(folder)`"
