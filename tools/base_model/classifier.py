"""The classifiers of `d3po.scorers.learned.classifier`, of subject and of style, trained on augmented drawings and never on samples.

The subject's never sees one vendor's drawings, the style's never sees some subjects': on these they are measured.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from d3po.scorers.learned.classifier import PictureClassifier
from tools.base_model import drawings as data
from tools.base_model.fitting import averaged, fit

STEPS, BATCH, LEARNING_RATE = 2_500, 48, 2e-3
POSING = replace(data.FREE, turns=1.3, recoloured=1.3)
LABELS = {"subjects": list(data.SUBJECTS), "styles": list(data.STYLES)}
POSES = 20
"""Number of random poses and backgrounds of each drawing on which accuracy is measured."""
HELD_OUT_STYLE = "simple"
"""This vendor's drawings are by other artists than all the rest; the subject's classifier is never trained on them."""
HELD_OUT_SUBJECTS = ("frog", "strawberry", "car", "owl", "house", "rabbit")


def train(kind: str, drawings: data.Drawings, directory: Path, *, device: str) -> None:
    """Cross-entropy on posed, recoloured, blurred and noised drawings of all but what is held out; `kind` is `subjects` or `styles`."""
    model = PictureClassifier(LABELS[kind]).to(device)
    kept = (~held_out(kind, drawings)).nonzero()[:, 0]
    labels = getattr(drawings, kind)

    def loss(generator: torch.Generator) -> Tensor:
        chosen = kept[torch.randint(len(kept), (BATCH,), generator=generator)]
        images, _ = data.compose(drawings.pixels[chosen].to(device), generator, POSING)
        # colours tell a style apart, so they are changed less than for subjects
        images = _augmented(images, generator, 1.0 if kind == "subjects" else 0.3)
        return F.cross_entropy(model(images), labels[chosen].to(device), label_smoothing=0.05)

    fit(model, loss, directory=directory, steps=STEPS, learning_rate=LEARNING_RATE, ema_decay=0.995, weight_decay=0.05)


def held_out(kind: str, drawings: data.Drawings) -> Tensor:
    """Which drawings (D,) are held out from training the classifier."""
    if kind == "subjects":
        return drawings.styles == list(data.STYLES).index(HELD_OUT_STYLE)
    return torch.isin(drawings.subjects, torch.tensor([LABELS["subjects"].index(name) for name in HELD_OUT_SUBJECTS]))


def load(kind: str, directory: Path) -> PictureClassifier:
    model = PictureClassifier(LABELS[kind])
    model.load_state_dict(averaged(directory))
    return model.eval()


@torch.no_grad()
def held_out_accuracy(kind: str, model: PictureClassifier, drawings: data.Drawings) -> dict[str, float]:
    """Accuracy on the held-out drawings, by subject or style."""
    generator = torch.Generator().manual_seed(3)
    chosen = held_out(kind, drawings).nonzero()[:, 0].repeat_interleave(POSES)
    labels = getattr(drawings, kind)[chosen]
    images, _ = data.compose(drawings.pixels[chosen], generator, data.FREE)
    read = torch.cat([model((part + 1) / 2).argmax(dim=1) for part in images.split(200)])
    right = (read == labels).float()
    return {name: right[labels == i].mean().item() for i, name in enumerate(LABELS[kind]) if (labels == i).any()}


def publish(model: PictureClassifier, path: Path) -> None:
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, path, metadata={"labels": json.dumps(model.labels)})


def _augmented(images: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Images in [0, 1] with random brightness, contrast, hue mix and a little noise."""
    count, device = len(images), images.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator).to(device)

    gain = 1 + 0.3 * strength * (uniform(3, 1, 1) - 0.5)
    shift = 0.2 * strength * (uniform(3, 1, 1) - 0.5)
    mixed = images * gain + shift
    gray = strength * uniform(1, 1, 1).pow(3)
    mixed = (1 - gray) * mixed + gray * mixed.mean(dim=1, keepdim=True)
    noise = 0.1 * uniform(1, 1, 1) * torch.randn(images.shape, generator=generator).to(device)
    return ((mixed + noise) / 2 + 0.5).clamp(0, 1)
