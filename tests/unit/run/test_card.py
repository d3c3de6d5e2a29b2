"""What a model card says to the hub, and what of this machine it does not say."""

from pathlib import Path

import pytest
import yaml

from d3po.config import RunConfig, dump_config
from d3po.preferences.records import Answer
from d3po.run.export.card import front_matter, in_words
from d3po.run.folder import RunFolder, without_parents
from tests.unit.preferences.votes import best_worst, tied, vote, won


def heading(model: str) -> dict[str, object]:
    first, *lines, last = front_matter(model)
    assert first == last == "---"
    return yaml.safe_load("\n".join(lines))


def test_a_model_of_the_hub_is_named_to_it() -> None:
    assert heading("runwayml/stable-diffusion-v1-5")["base_model"] == "runwayml/stable-diffusion-v1-5"


@pytest.mark.parametrize(
    "model", ["emoji", "custom:points:make", "/home/ada/models/cats", "/home/ada/cats.safetensors", "models/cats", "cats", "a--b/c", "../x"]
)
def test_any_other_model_is_not(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "cats").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert heading(model) == {"library_name": "diffusers", "tags": ["d3po", "lora", "diffusion"]}


@pytest.mark.parametrize(
    ("value", "shown"),
    {
        "/home/ada/models/cats": "cats",
        "~/my models/cats.safetensors": "cats.safetensors",
        "/home/ada/models/": "models/",
        "pickscore:/home/ada/pickscore": "pickscore:pickscore",
        "weighted:0.7*pickscore:/home/ada/p+3*aesthetic:/srv/a": "weighted:0.7*pickscore:p+3*aesthetic:a",
        "sqlite:////home/ada/votes.db": "sqlite:///votes.db",
        "postgresql://ada@host/votes": "postgresql://ada@host/votes",
        "http://localhost:8000/v1": "http://localhost:8000/v1",
        "ada/cats": "ada/cats",
        "custom:points:make": "custom:points:make",
        "a cat / a dog": "a cat / a dog",
    }.items(),
)
def test_paths_are_shown_by_their_last_names(value: str, shown: str) -> None:
    assert without_parents(value) == shown


def test_settings_for_everybody_name_no_folders_of_this_machine(tmp_path: Path) -> None:
    folder = RunFolder(path=tmp_path)
    config = RunConfig(model="/home/ada/cats", database="postgresql://ada:secret@host/votes", parts="/srv/models/sd")
    folder.config_path.write_text(dump_config(config))
    shown = folder.public_settings()
    folder.config_path.write_text(dump_config(RunConfig(database="postgresql://host/votes?user=ada&password=secret")))
    assert 'database = "postgresql://host/votes?user=ada&password=***"' in folder.public_settings()
    folder.config_path.write_text(dump_config(config))
    assert shown == folder.config_path.read_text().replace("/home/ada/", "").replace("/srv/models/", "").replace("secret", "***")
    assert 'model = "cats"' in shown


def test_the_labels_are_counted() -> None:
    """Of two pairs, one a tie; best and worst of three is three comparisons; a skip says nothing."""
    votes = [
        won(1, 2, annotator=1), tied(2, 3, annotator=2), best_worst((4, 5, 6), best=4, worst=6, annotator=1),
        vote("pair", (7, 8), Answer(outcome="skip"), annotator=1), vote("pair", (7, 8), Answer(outcome="both_bad"), annotator=3),
    ]  # fmt: skip
    assert in_words(votes, {1: "human", 2: "human", 3: "model", 4: "human"}) == (
        "5 answers by 2 people and 1 model, from which 5 comparisons of two pictures follow. "
        "Of the answers 1 were ties, 1 said that all were bad, and 1 were skips or flags."
    )
