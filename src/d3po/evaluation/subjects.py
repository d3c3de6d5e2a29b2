"""A small classifier that reads the subject of a picture by the embedded model's vocabulary: does a sample show what was asked?

It was trained on real drawings only, never on samples (see the model card).
"""

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn

WEIGHTS = "assets/emoji/subjects.safetensors"


class SubjectClassifier(nn.Module):
    """Four convolution stages from 32x32 RGB in [0, 1] to logits over subjects."""

    def __init__(self, subjects: Sequence[str], width: int = 32) -> None:
        super().__init__()
        self.subjects = tuple(subjects)
        self.stages = nn.Sequential(
            _stage(3, width), _stage(width, 2 * width), _stage(2 * width, 3 * width), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(3 * width, len(subjects))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B subjects"]:
        return self.head(self.stages(2 * images - 1))

    def subject_of(self, prompt: str) -> str | None:
        """The subject a prompt names, or None if it names none or several."""
        named = [s for s in self.subjects if re.search(rf"\b{re.escape(s)}\b", prompt.lower())]
        return named[0] if len(named) == 1 else None

    @torch.no_grad()
    def accuracy(self, images: Float[Tensor, "B 3 H W"], prompts: Sequence[str]) -> list[float | None]:
        """1 where an image's subject is read as its prompt's, 0 where not, None where the prompt names none."""
        read = self(images).argmax(dim=1).tolist()
        wanted = [self.subject_of(prompt) for prompt in prompts]
        return [None if name is None else float(self.subjects[i] == name) for i, name in zip(read, wanted, strict=True)]


def load_classifier(path: Path | None = None) -> SubjectClassifier:
    """The shipped classifier, or one saved elsewhere."""
    with safe_open(path or Path(str(files("d3po") / WEIGHTS)), framework="pt") as file:
        classifier = SubjectClassifier(json.loads(file.metadata()["subjects"]))
        classifier.load_state_dict({name: file.get_tensor(name).float() for name in sorted(file.keys())})
    return classifier.eval()


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.MaxPool2d(2),
    )
