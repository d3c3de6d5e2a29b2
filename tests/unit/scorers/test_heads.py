"""Judges that end in linear layers: the layers by hand, the aesthetic predictor, ImageReward against numbers that its authors' code gave."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from d3po.errors import RewardError
from d3po.scorers.learned.image_reward import MEAN, STD, image_reward, published_architecture, vision_tensors
from d3po.scorers.learned.similarity import TwoTowers
from d3po.scorers.learned.weights import linear_head, read_tensors
from d3po.scorers.registry import load_reward
from tests.precision import BOUND
from tests.tiny.judges import LAYERS, WIDTH, head, save_aesthetic, save_image_reward

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "image_reward.json").read_text())
PICTURE = Image.linear_gradient("L").resize((20, 12)).convert("RGB")


def by_hand(tensors: dict[str, torch.Tensor], x: torch.Tensor) -> float:
    for n in sorted(LAYERS):
        x = tensors[f"layers.{n}.weight"].to(x) @ x + tensors[f"layers.{n}.bias"].to(x)
    return float(x)


def test_a_head_is_its_layers_in_order_with_nothing_between() -> None:
    x = torch.linspace(-1, 1, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        value = float(linear_head(head(seed=0)).double()(x))
    assert value == pytest.approx(by_hand(head(seed=0), x), abs=BOUND)


def test_the_aesthetic_rating_is_the_head_of_an_embedding_of_length_one(tmp_path: Path) -> None:
    folder = save_aesthetic(tmp_path)
    embedding = TwoTowers(str(folder), str(folder)).embed_picture(PICTURE)
    assert float(embedding.norm()) == pytest.approx(1)
    judge = load_reward(f"aesthetic:{folder}", print)
    exact = by_hand(head(seed=1), embedding.double())
    # What n sums and products can be off by: n eps times what they come to without signs, and as much again for the embedding.
    size = by_hand({name: value.abs() for name, value in head(seed=1).items()}, embedding.double().abs())
    bound = 2 * len(LAYERS) * WIDTH * torch.finfo(torch.float32).eps * size
    assert judge(PICTURE, "a cat") == judge(PICTURE, "a dog") == pytest.approx(exact, abs=bound)


@pytest.mark.parametrize("judge", ["aesthetic", "image_reward"])
def test_weights_that_are_a_pickle_are_refused(judge: str, tmp_path: Path) -> None:
    """Even one of tensors alone; the file that is asked for is named, and where its remedy stands."""
    save_aesthetic(tmp_path)
    for file in ("aesthetic-model", "ImageReward"):
        torch.save(head(seed=1), tmp_path / f"{file}.pth")
    (tmp_path / "aesthetic-model.safetensors").unlink()
    with pytest.raises(
        RewardError, match=r"there is no .*\.safetensors in .*d3po loads no pickles; convert it once as docs/scorers\.md shows"
    ):
        load_reward(f"{judge}:{tmp_path}", print)
    with pytest.raises(RewardError, match=r"in a folder that feedback\.reward names"):
        load_reward(judge, print)


def test_a_pickle_under_another_name_is_no_safetensors_file(tmp_path: Path) -> None:
    save_aesthetic(tmp_path)
    torch.save(head(seed=1), tmp_path / "aesthetic-model.safetensors")
    with pytest.raises(RewardError, match=r"scorer aesthetic cannot be loaded: SafetensorError"):
        load_reward(f"aesthetic:{tmp_path}", print)


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_image_reward(tmp_path_factory.mktemp("image-reward"), GOLDEN["tensors"])


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['picture']}-{case['prompt'][:16]}")
def test_image_reward_is_the_number_that_its_authors_code_gives(case: dict[str, Any], blip: Path) -> None:
    picture = {"gradient": PICTURE, "turned": PICTURE.rotate(180), "red": Image.new("RGB", (20, 12), "red")}[case["picture"]]
    scorer: Any = image_reward(str(blip))
    for part in (scorer._vision, scorer._text, scorer._head):
        part.double()
    assert scorer(picture, case["prompt"]) == pytest.approx(case["reward"], abs=2e-5), "which was recorded in float32"


def test_image_reward_is_standardised(blip: Path, tmp_path: Path) -> None:
    """With a head of zeros and a last bias of MEAN + 2 STD, every picture has the reward 2."""
    tensors = read_tensors(str(blip), "ImageReward.safetensors", published="")
    for name in head(seed=0):
        tensors[f"mlp.{name}"].zero_()
    tensors["mlp.layers.7.bias"][:] = MEAN + 2 * STD
    for file in blip.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(tensors, tmp_path / "ImageReward.safetensors")
    assert image_reward(str(tmp_path))(PICTURE, "cat") == pytest.approx(2, abs=1e-5)


def test_a_tensor_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a tensor of another model: blocks\.0\.unknown"):
        vision_tensors({"blip.visual_encoder.blocks.0.unknown": torch.zeros(1)})


def test_the_published_sizes_are_those_of_vit_large_and_bert_base() -> None:
    config = published_architecture()
    vision, text = config.vision_config, config.text_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.image_size // vision.patch_size) == (1024, 24, 14)
    assert (text.hidden_size, text.num_hidden_layers, text.encoder_hidden_size, text.vocab_size) == (768, 12, 1024, 30524)
