"""Prompts that are longer than a family's text encoders read."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d3po.errors import ConfigError
from d3po.models.base import PolicySettings
from d3po.models.load import load_policy
from d3po.models.text_encoders import cut_lines
from tests.tiny import TINY, parts, save_tiny

LORA = {"rank": 2, "alpha": 2.0, "targets": "attention"}
CLIP, FEW = 12, {"text_encoder": 12}
"""Tokens that the tiny tokenizers of CLIP keep; T5's are cut by the pipelines themselves."""
LIMITS = {
    "stable-diffusion": FEW,
    "inpainting": FEW,
    "sdxl": {"text_encoder": CLIP, "text_encoder_2": CLIP},
    "sd3": {"text_encoder": CLIP, "text_encoder_2": CLIP, "text_encoder_3": 256},
    "flux": {"text_encoder": CLIP, "text_encoder_2": 512},
    "pixart": {"text_encoder": 300},
    "unconditional": {},
}


def words(count: int) -> str:
    return " ".join("a" for _ in range(count))


@pytest.mark.parametrize("family", TINY)
def test_a_prompt_is_said_to_be_cut_where_its_encoder_is_given_fewer_tokens(family: str, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(picture)
    settings = PolicySettings(width=8, height=8, inpaint_image=str(picture), inpaint_mask=str(picture))
    policy: Any = load_policy(str(save_tiny(family, tmp_path / "model")), lora=LORA, seed=0, settings=settings)
    for encoder, limit in LIMITS[family].items():
        given: list[int] = []
        part = getattr(policy.pipeline, encoder)
        hook = part.register_forward_pre_hook(lambda module, args, given=given: given.append(args[0].shape[1]))
        policy.encode_prompts([words(2 * limit)])
        hook.remove()
        assert {*given} == {limit}, "what the pipeline itself gives its encoder"
        tokenizer = getattr(policy.pipeline, encoder.replace("text_encoder", "tokenizer"))
        marks = len(tokenizer("").input_ids)
        each = (len(tokenizer(words(9)).input_ids) - marks) // 9
        fits, over = words((limit - marks) // each), words((limit - marks) // each + 1)
        lines = policy.cut_prompts(["a cat", fits, over])
        mine = [line for line in lines if f"the {limit} that {encoder} reads" in line]
        assert len(mine) == 1
        assert mine[0].startswith("warning: 1 of 3 prompts have more tokens than")
        assert policy.cut_prompts([words((CLIP - 2) // 2 if family != "pixart" else 10)]) == []
    assert policy.cut_prompts([]) == []
    assert len(policy.cut_prompts([words(2000)])) == len(LIMITS[family])


@pytest.mark.parametrize(("family", "encoder"), [("sd3", "text_encoder_3"), ("flux", "text_encoder_2"), ("pixart", "text_encoder")])
def test_as_many_tokens_are_read_as_the_settings_say(family: str, encoder: str, tmp_path: Path) -> None:
    settings = PolicySettings(width=8, height=8, max_sequence_length=17)
    policy: Any = load_policy(str(save_tiny(family, tmp_path / "model")), lora=LORA, seed=0, settings=settings)
    given: list[int] = []
    hook = getattr(policy.pipeline, encoder).register_forward_pre_hook(lambda module, args: given.append(args[0].shape[1]))
    text = policy.encode_prompts(["a cat"]).given["text"]
    hook.remove()
    assert {*given} == {17}
    assert text.shape[1] == 17 + (CLIP if family == "sd3" else 0)
    assert any("the 17 that" in line for line in policy.cut_prompts([words(100)]))


@pytest.mark.parametrize("family", ["stable-diffusion", "sdxl", "unconditional"])
def test_what_has_no_t5_encoder_is_given_no_length(family: str, tmp_path: Path) -> None:
    settings = PolicySettings(width=8, height=8, max_sequence_length=17)
    with pytest.raises(ConfigError, match=r"sampling\.max_sequence_length is 17, but \w+Pipeline has no T5 encoder; set it to 0"):
        load_policy(str(save_tiny(family, tmp_path / "model")), lora=LORA, seed=0, settings=settings)


def test_a_few_cut_prompts_are_named_and_the_others_counted() -> None:
    prompts = [f"{letter} {words(20)}" for letter in "abcdefg"]
    (line,) = cut_lines("text_encoder", parts.clip_tokenizer(), ["a cat", *prompts], ["a cat", *prompts], 12)
    assert line.startswith("warning: 7 of 8 prompts have more tokens than the 12 that text_encoder reads, and are cut off there: 'a a a")
    assert line.endswith("and 2 more")
