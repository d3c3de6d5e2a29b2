"""What leaves a run: weights, a card that says what they are, pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3po.errors import PromptError, RunFolderError, StorageError
from d3po.run.export.card import write_card
from d3po.run.export.generating import compare_images, generate
from d3po.run.export.phase import export_result
from d3po.run.feedback.labels import labels_of_round
from d3po.run.feedback.measured import compare_round
from d3po.run.loop import stop_at
from d3po.run.session import Session
from tests.unit.run.conftest import PROMPTS, SessionWith
from tests.unit.run.rounds import evaluate_both, train
from tests.unit.run.toy import policy_of


def shifts(directory: Path) -> str:
    return (directory / "lora" / "shift.txt").read_text()


def test_without_a_trained_round_there_is_nothing_to_export_or_to_look_at(session_with: SessionWith, tmp_path: Path) -> None:
    session = session_with(sampled=False)
    train_one = rf"run has no trained round.*; train one with `d3po run {session.run.folder.path}`"
    with pytest.raises(RunFolderError, match=train_one):
        export_result(session, tmp_path / "export")
    with pytest.raises(RunFolderError, match=train_one):
        generate(session, ["a cat"], tmp_path / "pictures", count=1, seed=0)
    with pytest.raises(RunFolderError, match=train_one):
        compare_images(session, ["a cat"], tmp_path / "grid.png", count=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_result_is_exported_with_its_card_and_strangers_files_stay(session_with: SessionWith, tmp_path: Path) -> None:
    session, directory = session_with(), tmp_path / "export"
    train(session, 0.5)
    train(session, 0.75, round=1)
    stop_at(session.run, kept_rounds=1, reason="the second went wrong")
    (directory / "lora").mkdir(parents=True)
    for name in ("lora/left over.txt", "diary.txt"):
        (directory / name).write_text("x")
    assert export_result(session, directory) == [directory / "lora", directory / "README.md"]
    assert shifts(directory) == "[0.5, 0.5, 0.5]", "of the last round that stands"
    assert sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*")) == [
        "README.md", "diary.txt", "lora", "lora/shift.txt",
    ]  # fmt: skip
    assert "1 rounds, compared by the measured reward `brightness`" in (directory / "README.md").read_text()


def test_averaged_weights_are_exported_and_sampled_where_the_run_keeps_them(session_with: SessionWith, tmp_path: Path) -> None:
    session = session_with({"training.policy_ema": "0.5"})
    session.trainer.average = {"shift": policy_of(session).state()["shift"] + 2.0}
    train(session, -2.0)
    generate(session, ["a cat"], tmp_path, count=1, seed=0)
    assert (np.asarray(Image.open(tmp_path / "000-0.png")) == 255).all(), "as bright as the average is"
    assert policy_of(session).state()["shift"].tolist() == [-2.0] * 3, "and the policy is itself again"
    export_result(session, tmp_path / "export")
    assert shifts(tmp_path / "export") == "[2.0, 2.0, 2.0]"


def test_an_export_that_fails_leaves_the_one_before(session_with: SessionWith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, directory = session_with(), tmp_path / "export"
    train(session, 0.5)
    export_result(session, directory)
    export = policy_of(session).export

    def full(where: Path) -> list[Path]:
        policy_of(session).move(9.0)
        export(where)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(policy_of(session), "export", full)
    with pytest.raises(StorageError, match=rf"cannot write {directory}.*No space left"):
        export_result(session, directory)
    assert shifts(directory) == "[0.5, 0.5, 0.5]"
    assert sorted(path.name for path in directory.iterdir()) == ["README.md", "lora"]


def test_pictures_are_named_by_prompt_and_number_and_a_seed_gives_the_same(session_with: SessionWith, tmp_path: Path) -> None:
    session = session_with(sampled=False)
    written = generate(session, PROMPTS, tmp_path / "a", count=2, seed=3, base=True)
    assert [path.relative_to(tmp_path / "a").as_posix() for path in written] == ["000-0.png", "000-1.png", "001-0.png", "001-1.png"]
    again = generate(session, PROMPTS, tmp_path / "b", count=2, seed=3, base=True)
    other = generate(session, PROMPTS, tmp_path / "c", count=2, seed=4, base=True)
    contents = [[path.read_bytes() for path in paths] for paths in (written, again, other)]
    assert contents[0] == contents[1]
    assert not set(contents[0]) & set(contents[2])
    assert len(set(contents[0])) == 4
    with pytest.raises(PromptError, match="there is no prompt to make pictures of; pass --prompt 'a cat'"):
        generate(session, [], tmp_path / "d", count=2, seed=3, base=True)


def test_a_comparison_puts_base_and_result_of_one_noise_side_by_side(session_with: SessionWith, tmp_path: Path) -> None:
    """Each picture is 4 pixels, with 4 between them; a line of text above, and above each row, is 14 high."""
    session = session_with(sampled=False)
    before = generate(session, ["a cat"], tmp_path / "base", count=2, seed=1, base=True)
    train(session, 0.25)
    after = generate(session, ["a cat"], tmp_path / "tuned", count=2, seed=1)
    sheet = np.asarray(Image.open(compare_images(session, ["a cat", "a dog"], tmp_path / "grid.png", count=2, seed=1)))
    assert sheet.shape == (14 + 2 * (14 + 4 + 4), 2 * 2 * 8, 3)
    shown = [sheet[28:32, x : x + 4] for x in (0, 8, 16, 24)]
    for pixels, path in zip(shown, (before[0], after[0], before[1], after[1]), strict=True):
        assert (pixels == np.asarray(Image.open(path))).all()
    assert (sheet[32:36] == 255).all(), "the gap below the row"


def card(session: Session, directory: Path, written: list[Path]) -> str:
    return write_card(session.run, directory, 1, written).read_text()


def test_a_card_says_what_is_there_who_compared_and_what_was_measured(session_with: SessionWith, tmp_path: Path) -> None:
    session = session_with({"feedback.reward": "brightness"})
    compare_round(session.run, 0)
    labels_of_round(session.run, 0)
    names = ["lora/pytorch_lora_weights.safetensors", "kohya.safetensors", "merged"]
    unmeasured = card(session, tmp_path, [tmp_path / name for name in names])
    assert "It was not evaluated." in unmeasured
    assert "* `lora/pytorch_lora_weights.safetensors`: the LoRA; load it with `pipeline.load_lora_weights(folder)`" in unmeasured
    assert "* `kohya.safetensors`: the LoRA in Kohya's format" in unmeasured
    assert "* `merged`: the whole model, with the LoRA merged into it" in unmeasured
    assert "A model that is not on the hub, `toy`, fine-tuned from comparisons" in unmeasured
    assert "6 answers by 1 measured reward, from which 6 comparisons of two pictures follow." in unmeasured
    assert "It was trained on 2 prompts:\n\n* `a cat`\n* `a dog`\n" in unmeasured
    assert 'reward = "brightness"' in unmeasured
    evaluate_both(session, 2.0)
    assert "on held-out prompts, from independent noise: win rate 1.000" in card(session, tmp_path, [])


def test_a_card_of_measured_rewards_counts_pictures_and_long_lists_are_cut(session_with: SessionWith, tmp_path: Path) -> None:
    session = session_with({"objective.name": "ddpo", "adapter.start_from": "/home/ada/style.safetensors"})
    (session.run.folder.path / "prompts.txt").write_text("".join(f"prompt {i}\n" for i in range(21)))
    text = card(session, tmp_path, [])
    assert "6 pictures, each with its measured reward." in text
    assert "It was trained on 21 prompts, such as these:" in text
    assert "* `prompt 19`\n" in text
    assert "prompt 20" not in text
    assert "The run started from the LoRA `style.safetensors`, which these files contain and whose licence applies too" in text
    assert "/home/ada" not in text


@pytest.mark.parametrize(
    ("settings", "annotators"),
    [
        ({"feedback.source": "human"}, "compared by people."),
        (
            {"feedback.source": "model", "vlm_judge.url": "http://h/v1", "vlm_judge.model": "eye"},
            "compared by the vision-language model `eye`.",
        ),
        ({"feedback.source": "imported", "objective.name": "diffusion_dpo"}, "compared by imported votes."),
        ({"feedback.reward": "pickscore:/home/ada/p"}, "compared by the measured reward `pickscore:p`."),
    ],
)
def test_a_card_names_who_compared(session_with: SessionWith, tmp_path: Path, settings: dict[str, str], annotators: str) -> None:
    session = session_with(settings, sampled=False)
    assert annotators in card(session, tmp_path, [])


def test_a_model_of_ones_own_is_named_as_it_is(session_with: SessionWith, tmp_path: Path) -> None:
    session = session_with({"model": "custom:points:make"}, sampled=False)
    assert "\n`custom:points:make`, fine-tuned from comparisons" in card(session, tmp_path, [])
