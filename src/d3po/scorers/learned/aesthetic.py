"""The LAION aesthetic predictor v2: linear layers on CLIP's embedding of the picture; the prompt is not used."""

from collections.abc import Callable

import torch
from PIL import Image

from d3po.scorers.learned.similarity import TwoTowers
from d3po.scorers.learned.weights import linear_head, read_tensors

HEAD, PUBLISHED = "aesthetic-model.safetensors", "https://huggingface.co/trl-lib/ddpo-aesthetic-predictor (aesthetic-model.pth)"
"""`sac+logos+ava1-l14-linearMSE.pth` of github.com/christophschuhmann/improved-aesthetic-predictor, the weights of the DDPO and D3PO papers."""


def aesthetic(folder: str = "") -> Callable[[Image.Image, str], float]:
    """Make the reward that is the predicted aesthetic rating, 1 to 10.

    Args:
        folder: a folder with a CLIP model and the head as `aesthetic-model.safetensors`.

    Raises:
        RewardError: the folder does not contain the head.
    """
    head = linear_head(read_tensors(folder, HEAD, published=PUBLISHED))
    towers = TwoTowers(folder, folder)

    @torch.inference_mode()
    def score(image: Image.Image, prompt: str) -> float:
        return float(head(towers.embed_picture(image).float().cpu()))

    return score
