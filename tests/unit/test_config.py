"""run.toml: complete, explained, written back, and strict about what it does not know."""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3po.config import RunConfig, dump_config, load_config, override, parse_config, under_new_names
from d3po.errors import ConfigError
from d3po.objective_settings import SETTINGS as OBJECTIVE_SETTINGS
from d3po.section import Section


def fields(section: type[Section], prefix: str = "") -> dict[str, Any]:
    """Every setting by its dotted name."""
    found: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found |= fields(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


def sections() -> dict[str, type[Section]]:
    return {
        name: f.annotation
        for name, f in RunConfig.model_fields.items()
        if isinstance(f.annotation, type) and issubclass(f.annotation, Section)
    }


def parse(text: str) -> RunConfig:
    return parse_config(tomllib.loads(text), where="run.toml")


SETTINGS = fields(RunConfig)
configs = st.builds(
    RunConfig,
    model=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20),
    seed=st.integers(0, 2**31),
    rounds=st.integers(1, 100),
    sampling=st.builds(
        sections()["sampling"],
        steps=st.integers(1, 50),
        eta=st.floats(0.01, 1),
        last_step=st.sampled_from(["model", "clamped"]),
        shared_start=st.booleans(),
    ),
    training=st.builds(
        sections()["training"],
        learning_rate=st.floats(1e-9, 1),
        adam_betas=st.tuples(st.floats(0, 0.999), st.floats(0, 0.9999)),
        timestep_range=st.tuples(st.integers(0, 500), st.integers(500, 1000)),
    ),
)


def test_defaults_are_a_whole_run() -> None:
    assert parse("") == RunConfig()


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_description(name: str) -> None:
    assert SETTINGS[name].description


@pytest.mark.parametrize("name", sections())
def test_every_table_has_a_docstring_of_its_own(name: str) -> None:
    assert sections()[name].__doc__ != Section.__doc__
    assert (sections()[name].__doc__ or "").strip().endswith(".")


@pytest.mark.parametrize("name", SETTINGS)
def test_written_file_shows_every_setting_with_its_description(name: str) -> None:
    *_, table, key = ["", *name.split(".")]
    config = override(RunConfig(), {"objective.name": table if table in OBJECTIVE_SETTINGS else "d3po"}, where="test")
    lines = [line for line in dump_config(config).splitlines() if line.startswith(f"{key} = ")]
    assert any(line.endswith(f"# {SETTINGS[name].description}") for line in lines)


@settings(max_examples=40, deadline=None)
@given(configs)
def test_written_file_reads_back_as_the_same_run(config: RunConfig) -> None:
    assert parse(dump_config(config)) == config


def test_written_file_is_loaded_from_disk(tmp_path: Path) -> None:
    config = RunConfig(seed=7, rounds=2)
    (tmp_path / "run.toml").write_text(dump_config(config))
    assert load_config(tmp_path / "run.toml") == config


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("sead = 1", "sead", "seed"),
        ("[traning]", "traning", "training"),
        ("[training]\nlerning_rate = 1.0", "training.lerning_rate", "learning_rate"),
        ("[training]\ngradient_checkpoint = true", "training.gradient_checkpoint", "gradient_checkpointing"),
    ],
)
def test_unknown_setting_suggests_the_nearest(text: str, key: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"run.toml: unknown setting '{key}'; did you mean '{nearest}'\?"):
        parse(text)


def test_unknown_setting_like_no_other_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'tracking\.zzz'; known here are tensorboard, wandb"):
        parse("[tracking]\nzzz = 1")


@pytest.mark.parametrize(
    ("text", "key", "given_value"),
    [
        ("seed = -1", "seed", "-1"),
        ('rounds = "five"', "rounds", "'five'"),
        ("rounds = 2.5", "rounds", "2.5"),
        ("[objective.d3po]\nbeta = -1", "objective.d3po.beta", "-1"),
        ("[objective.d3po]\nbeta = nan", "objective.d3po.beta", "nan"),
        ('[objective.d3po]\nclip = "both"', "objective.d3po.clip", "'both'"),
        ("[sampling]\nimages_per_prompt = 1", "sampling.images_per_prompt", "1"),
        ("[training]\ngradient_checkpointing = 1", "training.gradient_checkpointing", "1"),
        ("sampling = 3", "sampling", "3"),
    ],
)
def test_value_out_of_range_names_the_key_and_the_value(text: str, key: str, given_value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^run.toml: {key} is {given_value}: "):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sampling]\neta = 0.0", "sampling.eta is 0: deterministic steps have no log-prob"),
        ('[feedback]\nchoose = "adaptive"', "feedback.pairs_per_prompt is 0; pairs are chosen where feedback.ask = 'pair'"),
        ('[feedback]\nchoose = "adaptive"\npairs_per_prompt = 3\nask = "grid"', "feedback.ask is 'grid'"),
        ('[adapter]\nmethod = "full"\n[objective]\nreference = "fixed"', "set it to 'per_round'"),
        ("[training]\ntimestep_range = [800, 100]", r"training.timestep_range is \[800, 100\]"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text)


def test_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "3", 3),
        ("model", "some/model", "some/model"),
        ("model", '"quoted"', "quoted"),
        *(("model", name, name) for name in ("nan", "2024", "1.5", "true", "2024-01-01", "[1]", "inf", "1 # a", "1\nseed = 2")),
        ("parts", "", ""),
        ("parts", "007", "007"),
        ("vlm_judge.model", "4", "4"),
        ("evaluation.held_out_reward", "1e3", "1e3"),
        ("training.learning_rate", "1e-3", 1e-3),
        ("training.adam_betas", "[0.5, 0.6]", (0.5, 0.6)),
        ("tracking.tensorboard", "false", False),
        ("feedback.reward", "closeness:#ff0000", "closeness:#ff0000"),
        ("objective.d3po.clip", "none", "none"),
    ],
)
def test_override_replaces_one_setting_and_leaves_the_others(key: str, text: str, value: Any) -> None:
    before = RunConfig(rounds=9)
    after = override(before, {key: text}, where="--set")
    *parents, last = key.split(".")
    changed: Any = after
    for parent in parents:
        changed = getattr(changed, parent)
    assert getattr(changed, last) == value
    undone = override(after, {key: dumped(before, key)}, where="--set")
    assert undone == before


def dumped(config: RunConfig, key: str) -> str:
    """A setting's value as it stands in run.toml."""
    document = tomllib.loads(dump_config(config))
    for part in key.split("."):
        document = document[part]
    return repr(document).lower() if isinstance(document, bool) else repr(document)


@pytest.mark.parametrize(("key", "nearest"), [("sede", "seed"), ("training.epoch", "epochs"), ("trainings.epochs", "training")])
def test_override_of_an_unknown_setting_suggests_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"--set: unknown setting .*did you mean '{nearest}'"):
        override(RunConfig(), {key: "1"}, where="--set")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "run.toml").write_bytes('seed = 7\r\nmodel = "näive"\r\n'.encode(encoding))
    assert load_config(tmp_path / "run.toml") == RunConfig(seed=7, model="näive")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone.toml cannot be read: No such file"):
        load_config(tmp_path / "gone.toml")


def test_file_that_is_no_toml_is_named_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("seed = 1\nrounds = \n")
    with pytest.raises(ConfigError, match=r"run.toml is not valid TOML: .*line 2"):
        load_config(tmp_path / "run.toml")


def test_a_setting_inside_a_single_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="which is a single value"):
        override(RunConfig(), {"seed.x": "1"}, where="test")


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"model = '\xff'")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(path)


def test_only_the_table_of_the_runs_objective_is_written_and_compared(tmp_path: Path) -> None:
    config = override(RunConfig(), {"objective.name": "dpok", "objective.dpok.beta": "0"}, where="test")
    (tmp_path / "run.toml").write_text(dump_config(config))
    assert load_config(tmp_path / "run.toml").objective.dpok.beta == 0.0
    assert re.findall(r"\[objective\.\w+\]", dump_config(config)) == ["[objective.dpok]"]
    assert {key for key, value in config.model_dump()["objective"].items() if isinstance(value, dict)} == {"dpok"}


def test_another_objective_does_not_inherit_the_numbers_of_the_first() -> None:
    tuned = override(RunConfig(), {"objective.d3po.beta": "3"}, where="test")
    assert override(tuned, {"objective.name": "ipo_step"}, where="test").objective.ipo_step.beta == 10.0
    assert override(tuned, {"objective.name": "d3po"}, where="test").objective.d3po.beta == 3.0


def test_a_table_that_the_objective_does_not_read_is_refused() -> None:
    said = r"objective is .*: \[objective\.kto\] is set, but objective\.name is 'd3po', which does not read it; remove it, or set objective\.name to 'kto'"
    with pytest.raises(ConfigError, match=said):
        parse("[objective.kto]\nbeta = 3.0")
    with pytest.raises(ConfigError, match=said):
        override(RunConfig(), {"objective.kto.beta": "3"}, where="test")


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "true", '"mine"', "[]"])
def test_what_is_no_number_of_an_objective_is_named_by_its_key_alone(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^run\.toml: objective\.d3po\.beta is [^:]+: "):
        parse(f"[objective.d3po]\nbeta = {value}")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"judge": {"url": "http://localhost"}}, "judge is now called vlm_judge; use that name"),
        ({"training": {"max_rows": 3}}, "training.max_rows is now called training.micro_batch_size; use that name"),
        ({"objective": {"beta": 3.0}}, r"objective\.beta is now called objective\.d3po\.beta, .*; use that name"),
        ({"objective": {"name": "kto", "beta": 3.0}}, r"objective\.beta is now called objective\.kto\.beta, .*; use that name"),
        (
            {"objective": {"name": "kto", "clip": "none"}},
            r"objective\.clip .*objective\.d3po_branch\.clip\), and 'kto' is not one of them; remove it",
        ),
    ],
)
def test_a_former_name_is_refused_with_the_new_one(written: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(written, where="run.toml")


def test_settings_that_a_run_began_with_are_read_under_the_names_of_today() -> None:
    now = RunConfig.model_validate({"training": {"micro_batch_size": 3}, "vlm_judge": {"attempts": 2}}).model_dump(mode="json")
    before = copy.deepcopy(now)
    before["training"]["max_rows"] = before["training"].pop("micro_batch_size")
    before["judge"] = before.pop("vlm_judge")
    assert under_new_names(before) == under_new_names(now) == now


@pytest.mark.parametrize("unset", ["own", 0.0])
def test_an_objectives_settings_that_a_run_began_with_are_read_in_its_own_table(unset: Any) -> None:
    """All objectives once shared them; what was left to the objective was "own", and before that 0, where all were written."""
    others = dict.fromkeys(("clip_range", "temperature", "dislike_weight", "sharpness"), unset)
    before = {
        "objective": {"name": "dpok", "reference": "fixed", "clip": "none", "targets": "signed", "alpha": 10.0, "beta": unset, **others}
    }
    assert under_new_names(before) == {"objective": {"name": "dpok", "reference": "fixed", "dpok": {"alpha": 10.0}}}


def test_a_zero_among_few_numbers_is_a_zero() -> None:
    assert under_new_names({"objective": {"name": "dpok", "beta": 0.0}}) == {"objective": {"name": "dpok", "dpok": {"beta": 0.0}}}
    assert under_new_names({"objective": 3}) == {"objective": 3}
    assert under_new_names({}) == {}
