"""Scorers by CLIP models: the cosine between a picture's embedding and its prompt's, in the unit in which each score was published."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor

from d3po.scorers.learned.weights import device

CLIP_L = "openai/clip-vit-large-patch14"
CLIP_H_PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
PICKSCORE = "yuvalkirstain/PickScore_v1"
HPSV2 = "adams-story/HPSv2-hf"
REMEMBERED_PROMPTS = 1024


class TwoTowers:
    """A CLIP model, or one fine-tuned from it.

    Args:
        model: folder or hub id of its weights.
        processor: folder or hub id of its tokenizer and image preprocessing.
        whole: pad a picture that is not square with black bars; otherwise its central square is taken.
    """

    def __init__(self, model: str, processor: str, *, whole: bool = False) -> None:
        self._device = device()
        self._model: Any = CLIPModel.from_pretrained(model, use_safetensors=True)
        self._model.eval().to(self._device)
        self._whole = whole
        self._processor: Any = CLIPProcessor.from_pretrained(processor)
        self._embed_prompt = lru_cache(REMEMBERED_PROMPTS)(self._embed_prompt_anew)

    @property
    @torch.inference_mode()
    def scale(self) -> float:
        """The model's logit scale, by which cosines are multiplied in training."""
        return float(self._model.logit_scale.exp())

    @torch.inference_mode()
    def embed_picture(self, image: Image.Image) -> Tensor:
        """The picture's embedding, normalised to length 1, shape (D,)."""
        shown = image.convert("RGB")
        if self._whole:
            shown = _between_bars(shown, self._model.config.vision_config.image_size)
        inputs = self._processor(images=shown, return_tensors="pt").to(self._device)
        return _unit(self._model.get_image_features(**inputs).pooler_output[0])

    @torch.inference_mode()
    def cosine(self, image: Image.Image, prompt: str) -> float:
        """The cosine between picture and prompt, -1 to 1; a prompt that is too long for the model is cut."""
        return float(self.embed_picture(image) @ self._embed_prompt(prompt))

    def _embed_prompt_anew(self, prompt: str) -> Tensor:
        length = self._model.config.text_config.max_position_embeddings
        inputs = self._processor(text=prompt, truncation=True, max_length=length, return_tensors="pt").to(self._device)
        return _unit(self._model.get_text_features(**inputs).pooler_output[0])


def clip_score(folder: str = "") -> Callable[[Image.Image, str], float]:
    """Make the CLIP score, 100 max(cosine, 0) (Hessel et al. 2021, arXiv 2104.08718, with the factor 100 used in papers on text-to-image)."""
    towers = TwoTowers(folder or CLIP_L, folder or CLIP_L)
    return lambda image, prompt: 100 * max(towers.cosine(image, prompt), 0.0)


def pickscore(folder: str = "") -> Callable[[Image.Image, str], float]:
    """Make the PickScore, exp(logit scale) * cosine (Kirstain et al. 2023, arXiv 2305.01569)."""
    towers = TwoTowers(folder or PICKSCORE, folder or CLIP_H_PROCESSOR)
    return lambda image, prompt: towers.scale * towers.cosine(image, prompt)


def hpsv2(folder: str = "") -> Callable[[Image.Image, str], float]:
    """Make the HPSv2 score, 100 * cosine (Wu et al. 2023, arXiv 2306.09341), as papers report it. It was tuned on pictures padded with black bars."""
    towers = TwoTowers(folder or HPSV2, folder or CLIP_H_PROCESSOR, whole=True)
    return lambda image, prompt: 100 * towers.cosine(image, prompt)


def _between_bars(image: Image.Image, side: int) -> Image.Image:
    """Scale the picture's longer side to `side` and put it in the middle of a black square."""
    small = ImageOps.contain(image, (side, side), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (side, side))
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return square


def _unit(embedding: Tensor) -> Tensor:
    return torch.nn.functional.normalize(embedding, dim=-1)
