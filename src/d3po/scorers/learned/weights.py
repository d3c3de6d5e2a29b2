"""Where a judge's weights lie, and how they are read: safetensors, never pickles."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from d3po.errors import RewardError


def device() -> torch.device:
    """Where scorers compute."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def web_file(url: str) -> Path:
    """A file from the web, fetched once into torch's cache."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=False)
    return path


def read_tensors(folder: str, name: str, *, published: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Args:
        folder: where the user keeps it.
        name: the file's.
        published: the file it is made from, which is a pickle; d3po loads none.

    Raises:
        RewardError: no folder is named, or it does not hold the file.
    """
    path = Path(folder) / name
    if not folder or not path.exists():
        raise RewardError(
            f"there is no {name} in {folder or 'a folder that feedback.reward names'}: its weights are published as a pickle, {published}, and "
            "d3po loads none; convert it once as docs/scorers.md shows, and name the folder"
        )
    return load_file(path)


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
