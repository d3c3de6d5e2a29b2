"""ImageReward (Xu et al. 2023, arXiv 2304.05977): BLIP's text encoder attends to the picture, and linear layers turn its output into a number.

The authors' package needs a transformers version of 2022. Here the published weights are loaded into transformers' BLIP, which has the same layers under
other names.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, BlipConfig, BlipTextConfig, BlipVisionConfig, CLIPImageProcessorPil
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from d3po.scorers.learned.weights import device, linear_head, read_tensors

WEIGHTS, PUBLISHED = "ImageReward.safetensors", "https://huggingface.co/THUDM/ImageReward (ImageReward.pt)"
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Mean and standard deviation of the raw reward on the authors' data, by which it is standardised."""
PROMPT_TOKENS = 35
VISION_NAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.attn\.", r"encoder.layers.\1.self_attn."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)
"""The names of the vision transformer's tensors in the published file, as patterns, and in transformers."""


def published_architecture() -> Any:
    """BLIP's configuration: ViT-L/16 at 224 pixels and a BERT base that attends to it, with a vocabulary of 30524 tokens, two of them added by BLIP."""
    vision = BlipVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=224, patch_size=16, layer_norm_eps=1e-6
    )  # fmt: skip
    return BlipConfig(vision_config=vision, text_config=BlipTextConfig(vocab_size=30524, encoder_hidden_size=1024))


def image_reward(folder: str = "") -> Callable[[Image.Image, str], float]:
    """Make the standardised ImageReward.

    Args:
        folder: a folder with `ImageReward.safetensors`, a BERT tokenizer and, if the sizes are not the published ones, BLIP's `config.json`.

    Raises:
        RewardError: the folder does not contain the weights.
    """
    tensors = read_tensors(folder, WEIGHTS, published=PUBLISHED)
    config = BlipConfig.from_pretrained(folder) if (Path(folder) / "config.json").exists() else published_architecture()
    return _Scorer(config, tensors, folder)


class _Scorer:
    """The reward as a callable."""

    def __init__(self, config: Any, tensors: Mapping[str, Tensor], tokenizer: str) -> None:
        self._device = device()
        self._vision: Any = BlipVisionModel(config.vision_config)
        self._vision.load_state_dict(vision_tensors(tensors))
        self._text: Any = BlipTextModel(config.text_config, add_pooling_layer=False)
        # an old file may contain position ids, which are constants and no weights
        text = {name: value for name, value in _below(tensors, "blip.text_encoder.").items() if not name.endswith("position_ids")}
        self._text.load_state_dict(text)
        self._head = linear_head(_below(tensors, "mlp.")).to(self._device)
        for part in (self._vision, self._text):
            part.eval().to(self._device)
        self._tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        size = config.vision_config.image_size
        self._pixels = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})

    @torch.inference_mode()
    def __call__(self, image: Image.Image, prompt: str) -> float:
        pixels = self._pixels(images=image.convert("RGB"), return_tensors="pt")["pixel_values"].to(self._device)
        words = self._tokenizer(prompt, padding="max_length", truncation=True, max_length=PROMPT_TOKENS, return_tensors="pt").to(
            self._device
        )
        seen = self._vision(pixel_values=pixels).last_hidden_state
        read = self._text(
            input_ids=words.input_ids,
            attention_mask=words.attention_mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long, device=self._device),
        ).last_hidden_state
        return (float(self._head(read[0, 0])) - MEAN) / STD


def vision_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vision transformer's tensors under the names that they have in transformers.

    Raises:
        ValueError: a tensor is not one of ImageReward's.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in _below(tensors, "blip.visual_encoder.").items():
        for pattern, replacement in VISION_NAMES:
            if re.match(pattern, name):
                renamed[re.sub(pattern, replacement, name)] = value
                break
        else:
            raise ValueError(f"a tensor of another model: {name}")
    return renamed


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
