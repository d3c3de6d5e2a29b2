"""Where a judge's weights lie, and how they are read: tensors only, whatever the file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


def device() -> torch.device:
    """Where judges compute."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def hub_file(repository: str, name: str) -> Path:
    """A file of a repository on the Hugging Face hub, fetched once."""
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repository, name))


def web_file(url: str) -> Path:
    """A file from the web, fetched once into torch's cache."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=False)
    return path


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a published checkpoint. torch's restricted reader refuses a file that holds anything to be executed."""
    return torch.load(path, map_location="cpu", weights_only=True)


def linear_head(tensors: Mapping[str, Tensor]) -> nn.Sequential:
    """The linear layers `layers.N.weight`, `layers.N.bias` in order of N.

    The aesthetic predictor and ImageReward both end in such a stack, with nothing between the layers but dropout, which only training needs.
    """
    numbers = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("layers.")})
    layers: list[nn.Module] = []
    for number in numbers:
        weight = tensors[f"layers.{number}.weight"]
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": tensors[f"layers.{number}.bias"]})
        layers.append(layer)
    return nn.Sequential(*layers).eval()
