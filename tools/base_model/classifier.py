"""The subject classifier of `d3po.judges.subjects`, trained on augmented drawings; one drawing of every subject is held out."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from d3po.judges.subjects import SubjectClassifier
from tools.base_model import drawings as data
from tools.base_model.fitting import averaged, fit

STEPS, BATCH, LEARNING_RATE = 1_000, 64, 2e-3
HELD_OUT_STYLE = "simple"
"""This vendor's drawings are by other artists than all the rest, and are never trained on."""


def train(drawings: Tensor, directory: Path) -> None:
    """Cross-entropy on posed, recoloured, blurred and noised drawings of all vendors but the held-out one."""
    model = SubjectClassifier(list(data.SUBJECTS))
    kept = torch.tensor([i for i, style in enumerate(data.STYLES) if style != HELD_OUT_STYLE])

    def loss(generator: torch.Generator) -> Tensor:
        subjects = torch.randint(len(data.SUBJECTS), (BATCH,), generator=generator)
        styles = kept[torch.randint(len(kept), (BATCH,), generator=generator)]
        images = _augmented(data.compose(drawings, subjects, styles, generator, strength=1.6).images, generator)
        return F.cross_entropy(model(images), subjects, label_smoothing=0.05)

    fit(model, loss, directory=directory, steps=STEPS, learning_rate=LEARNING_RATE, ema_decay=0.995, weight_decay=0.05)


def load(directory: Path) -> SubjectClassifier:
    model = SubjectClassifier(list(data.SUBJECTS))
    model.load_state_dict(averaged(directory))
    return model.eval()


@torch.no_grad()
def held_out_accuracy(model: SubjectClassifier, drawings: Tensor) -> tuple[float, dict[str, float]]:
    """Accuracy on the held-out vendor's drawings, 40 random poses and backgrounds each: overall and by subject."""
    generator = torch.Generator().manual_seed(3)
    style = list(data.STYLES).index(HELD_OUT_STYLE)
    by_subject: dict[str, float] = {}
    for index, subject in enumerate(data.SUBJECTS):
        subjects = torch.full((40,), index)
        batch = data.compose(drawings, subjects, torch.full((40,), style), generator)
        by_subject[subject] = (model((batch.images + 1) / 2).argmax(dim=1) == index).float().mean().item()
    return sum(by_subject.values()) / len(by_subject), by_subject


def publish(model: SubjectClassifier, path: Path) -> None:
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, path, metadata={"subjects": json.dumps(model.subjects)})


def _augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images in [0, 1] with random brightness, contrast, hue mix and a little noise."""
    count = len(images)
    gain = 1 + 0.3 * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5)
    shift = 0.2 * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5)
    mixed = images * gain + shift
    gray = torch.rand(count, 1, 1, 1, generator=generator).pow(3)
    mixed = (1 - gray) * mixed + gray * mixed.mean(dim=1, keepdim=True)
    noise = 0.1 * torch.rand(count, 1, 1, 1, generator=generator) * torch.randn(images.shape, generator=generator)
    return ((mixed + noise) / 2 + 0.5).clamp(0, 1)
