"""The embedded model's classifier as a judge."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from d3po.embedded import EMBEDDED, EmbeddedModel
from d3po.errors import RewardError
from d3po.scorers.learned.classifier import PictureClassifier, load_classifier
from d3po.scorers.registry import annotator_kind, load_reward

PICTURE = Image.linear_gradient("L").resize((32, 32)).convert("RGB")


@pytest.fixture
def probabilities() -> dict[str, float]:
    """What the classifier makes of `PICTURE`."""
    classifier = load_classifier()
    pixels = torch.from_numpy(np.array(PICTURE)).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        exponentials = classifier(pixels[None])[0].double().exp()
    return dict(zip(classifier.labels, (exponentials / exponentials.sum()).tolist(), strict=True))


def test_the_subject_judge_is_the_log_probability_of_what_the_prompt_names(probabilities: dict[str, float]) -> None:
    judge = load_reward("subject", print)
    for name in ("panda", "cactus"):
        assert judge(PICTURE, f"a {name}") == pytest.approx(np.log(probabilities[name]), abs=1e-4)


def test_only_the_subject_that_is_read_is_recognised(probabilities: dict[str, float]) -> None:
    judge = load_reward("recognised", print)
    read = max(probabilities, key=lambda name: probabilities[name])
    given = {name: judge(PICTURE, f"a {name}") for name in probabilities}
    assert given == {name: 0.0 if name == read else -1.0 for name in probabilities}
    assert annotator_kind("recognised") == "model"


def test_the_style_judge_is_the_log_probability_of_the_style_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    classifier = PictureClassifier(["flat", "retro"], width=8)
    save_file(classifier.state_dict(), tmp_path / "styles.safetensors", metadata={"labels": '["flat", "retro"]'})
    monkeypatch.setitem(EMBEDDED, "painted", EmbeddedModel(folder=str(tmp_path), pixels=48))
    with torch.no_grad():
        logits = classifier(torch.from_numpy(np.array(PICTURE)).permute(2, 0, 1)[None].float() / 255)[0].double()
    expected = (logits - logits.logsumexp(dim=0)).tolist()
    assert [load_reward(f"style:{name}", print)(PICTURE, "a cat") for name in ("flat", "retro")] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(RewardError, match="style:baroque names no style"):
        load_reward("style:baroque", print)


def test_a_prompt_that_names_no_subject_is_refused() -> None:
    with pytest.raises(RewardError, match="names none, or several"):
        load_reward("subject", print)(PICTURE, "a treaty")
