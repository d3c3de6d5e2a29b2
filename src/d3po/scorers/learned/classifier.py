"""Small classifiers of a picture's subject and style, in the embedded models' words. They measure whether a sample shows what its prompt asks for.

They were trained on real drawings only, never on samples (see the model cards).
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from d3po.embedded import DEFAULT, EMBEDDED, for_pictures
from d3po.errors import RewardError


class PictureClassifier(nn.Module):
    """Three convolution stages from RGB pictures in [0, 1] to logits over labels: subjects, or styles."""

    def __init__(self, labels: Sequence[str], width: int = 32) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.stages = nn.Sequential(
            _stage(3, width), _stage(width, 2 * width), _stage(2 * width, 3 * width), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(3 * width, len(labels))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B labels"]:
        return self.head(self.stages(2 * images - 1))

    def label_in(self, prompt: str) -> str | None:
        """The label that a prompt names; None if it names none or several."""
        named = [label for label in self.labels if re.search(rf"\b{re.escape(label)}\b", prompt.lower())]
        return named[0] if len(named) == 1 else None

    @torch.no_grad()
    def accuracy(self, images: Float[Tensor, "B 3 H W"], prompts: Sequence[str]) -> list[float | None]:
        """For each image, 1 if it is classified as its prompt's label, 0 if not, None if the prompt names no single label."""
        read = self(images).argmax(dim=1).tolist()
        wanted = [self.label_in(prompt) for prompt in prompts]
        return [None if name is None else float(self.labels[i] == name) for i, name in zip(read, wanted, strict=True)]


@cache
def load_classifier(path: Path = EMBEDDED[DEFAULT].subjects) -> PictureClassifier:
    """Load a classifier, of an embedded model or saved elsewhere."""
    with safe_open(path, framework="pt") as file:
        classifier = PictureClassifier(json.loads(file.metadata()["labels"]), width=file.get_slice("stages.0.0.weight").get_shape()[0])
        classifier.load_state_dict({name: file.get_tensor(name).float() for name in sorted(file.keys())})
    return classifier.eval()


def subject(argument: str = "") -> Callable[[Image.Image, str], float]:
    """Make the reward that is the log-probability that a picture shows its prompt's subject."""
    return lambda image, prompt: float(_read(image, _classifier_for(image)).log_softmax(dim=1)[0, _wanted(image, prompt)])


def recognised(argument: str = "") -> Callable[[Image.Image, str], float]:
    """Make the reward that is 0 if a picture is classified as its prompt's subject, and -1 otherwise: the labels of the paper's distortion experiment."""
    return lambda image, prompt: float(_read(image, _classifier_for(image)).argmax() == _wanted(image, prompt)) - 1


def style(argument: str) -> Callable[[Image.Image, str], float]:
    """Make the reward that is the log-probability that a picture is drawn in the style that `argument` names.

    Raises:
        RewardError: no embedded model's classifier knows the style.
    """
    known = [path for model in EMBEDDED.values() if (path := model.styles).exists() and argument in load_classifier(path).labels]
    if not known:
        raise RewardError(f"style:{argument} names no style of the embedded models; they are listed in the model cards")
    classifier = load_classifier(known[0])
    return lambda image, prompt: float(_read(image, classifier).log_softmax(dim=1)[0, classifier.labels.index(argument)])


def _classifier_for(image: Image.Image) -> PictureClassifier:
    """The classifier of subjects of the embedded model that draws pictures of this size."""
    return load_classifier(for_pictures(image.width).subjects)


@torch.no_grad()
def _read(image: Image.Image, classifier: PictureClassifier) -> Float[Tensor, "1 labels"]:
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
    return classifier(pixels[None])


def _wanted(image: Image.Image, prompt: str) -> int:
    classifier = _classifier_for(image)
    name = classifier.label_in(prompt)
    if name is None:
        raise RewardError("the prompt names none, or several, of the embedded model's subjects; they are listed in its card")
    return classifier.labels.index(name)


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
