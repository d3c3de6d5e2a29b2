"""Which model is what: recognised by its folder, its file or its name, and refused with what is supported."""

import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    SASolverScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.pixart_alpha import pipeline_pixart_sigma
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from d3po.config import RunConfig, override
from d3po.errors import ConfigError, FormatError, ModelError
from d3po.models import pixart
from d3po.models.base import PolicySettings, SamplerSettings
from d3po.models.families import FAMILIES, family_of, named, table
from d3po.models.load import load_policy
from d3po.options import LastStep, Spacing
from d3po.recipes import load_recipe
from d3po.run.starting import numbered_starts, start
from tests.precision import assert_same
from tests.tiny import pipelines, save_tiny

LORA = {"rank": 2, "alpha": 2.0, "targets": "attention"}


def recognised(model: Path) -> str:
    return family_of(str(model)).name


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.pipelines], ids=lambda f: f.name)
def test_every_pipeline_is_recognised_by_its_index(family, tmp_path: Path) -> None:
    for pipeline in family.pipelines:
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
        assert recognised(tmp_path) == family.name


def test_an_unknown_pipeline_is_refused_with_those_that_are_supported(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableCascadeDecoderPipeline"}))
    with pytest.raises(
        ModelError, match=r"is a StableCascadeDecoderPipeline, which d3po does not know.*supported: .*FluxPipeline.*custom:"
    ):
        family_of(str(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_broken_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(ModelError, match=r"model_index\.json does not say which pipeline"):
        family_of(str(tmp_path))


V1 = {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}
FILES = {
    "stable-diffusion": V1,
    "inpainting": {"model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3)},
    "sdxl": V1 | {"conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,)},
    "flux": {"double_blocks.0.img_attn.norm.key_norm.scale": (128,), "guidance_in.in_layer.bias": (3072,), "img_in.weight": (3072, 64)},
}


@pytest.mark.parametrize("family", FILES)
def test_a_single_file_is_recognised_by_its_tensors(tmp_path: Path, family: str) -> None:
    save_file({name: torch.zeros(shape) for name, shape in FILES[family].items()}, tmp_path / "model.safetensors")
    assert recognised(tmp_path / "model.safetensors") == family


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="no model that diffusers recognises; supported"):
        family_of(str(tmp_path / "other.safetensors"))
    (tmp_path / "model.ckpt").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"is no \.safetensors file; pickled"):
        family_of(str(tmp_path / "model.ckpt"))
    (tmp_path / "cut.safetensors").write_bytes(b"\0\0")
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        family_of(str(tmp_path / "cut.safetensors"))


def test_names_are_families_too() -> None:
    assert (family_of("emoji"), family_of("custom:mine:make")) == (named("stable-diffusion"), named("custom"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A hub on which `somebody/cats` is an unconditional pipeline, and what was fetched from it."""
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    fetched: list[tuple[str, str]] = []

    def download(repository: str, name: str) -> str:
        fetched.append((repository, name))
        if repository != "somebody/cats":
            raise LocalEntryNotFoundError("no such repository, or no network")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return fetched


def test_a_hub_id_is_recognised_by_its_index_alone(hub: list[tuple[str, str]]) -> None:
    begun = start(load_recipe("default"), {"model": "somebody/cats"})
    assert (begun.family, begun.needs_prompts) == (named("unconditional"), False)
    assert (begun.config.training.learning_rate, begun.config.sampling.guidance) == (1e-4, 1.0)
    assert hub == [("somebody/cats", "model_index.json")]


def test_a_hub_id_whose_index_is_on_this_machine_needs_no_hub(
    hub: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, name: str(tmp_path / name))
    assert (family_of("somebody/else").name, hub) == ("unconditional", [])


def test_a_model_that_is_neither_here_nor_in_reach_is_named(hub: list[tuple[str, str]]) -> None:
    with pytest.raises(
        ModelError, match=r"'somebody/else' is not on this machine, and the hub does not give its model_index\.json \(\w+Error\)"
    ):
        start(load_recipe("default"), {"model": "somebody/else"})


PATHS = ["./no/such/folder", "/no/such", "~/models/mine", "mine", "models/of/mine", "here/mine", "some.safetensors", "a/b.safetensors"]


@pytest.mark.parametrize("model", [*PATHS, "..\\mine", "C:\\models\\mine", "a/b\0", "x" * 5000, "", "a b/c", "nan"])
def test_what_is_written_as_a_path_is_not_looked_for_on_the_hub(
    hub: list[tuple[str, str]], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelError,
        match=r"is not there: there is no such file or folder, seen from .* give its new place by `d3po run RUN --set model=PATH`",
    ):
        family_of(model)
    assert hub == []


def test_a_recipes_own_model_is_not_looked_for(hub: list[tuple[str, str]]) -> None:
    begun = start(load_recipe("safety"), {})
    assert begun.needs_prompts
    assert "stable-diffusion-v1-5, with the settings of the recipe 'safety'" in begun.words()
    assert hub == []


def test_the_table_has_a_row_a_family_and_no_empty_cell() -> None:
    heading, *rows = table()
    assert len(rows) == len(FAMILIES)
    assert all(len(row) == len(heading) and all(row) for row in rows)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_every_proposed_setting_is_one(family) -> None:
    override(RunConfig(), dict(family.proposes), where=family.name)


def test_a_familys_settings_are_proposed_and_the_users_win(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    begun = start(load_recipe("default"), {"model": str(tmp_path), "sampling.steps": "7"})
    assert (begun.config.sampling.guidance, begun.config.sampling.steps) == (3.5, 7)
    assert begun.needs_prompts
    assert "FLUX" in begun.words()
    assert "guidance = 3.5" in begun.words()
    assert "steps" not in begun.words()


def test_starts_stand_in_for_prompts() -> None:
    trained, held_out = numbered_starts(RunConfig())
    assert len({*trained, *held_out}) == len(trained) + len(held_out) >= 64 + RunConfig().evaluation.prompts


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        ("stable-diffusion", PolicySettings(guidance="embedded"), "takes no guidance as input"),
        ("stable-diffusion", PolicySettings(width=9), "must be multiples of 4"),
        ("inpainting", PolicySettings(), "needs a picture and a mask"),
        (
            "inpainting",
            PolicySettings(inpaint_image="/no/such.png", inpaint_mask="/no/such.png"),
            "sampling.inpaint_image: cannot read /no/such.png",
        ),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(tmp_path: Path, family: str, settings: PolicySettings, words: str) -> None:
    with pytest.raises((ConfigError, FormatError), match=words):
        load_policy(str(save_tiny(family, tmp_path)), lora=LORA, seed=0, settings=settings)


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        ("sd3", SamplerSettings(steps=5, kind="ddim"), "is 'ddim', but this is a flow model"),
        ("sd3", SamplerSettings(steps=5, zero_terminal_snr=True), "always begins at pure noise"),
        ("pixart", SamplerSettings(steps=5, kind="flow_sde"), "this is no flow model"),
        ("pixart", SamplerSettings(steps=1001), "more than the 1000 timesteps"),
        ("pixart", SamplerSettings(steps=5, zero_terminal_snr=True, spacing="trailing"), "zero terminal SNR"),
    ],
)
def test_samplers_that_do_not_fit_the_model_are_refused(tmp_path: Path, family: str, settings: SamplerSettings, words: str) -> None:
    policy = load_policy(str(save_tiny(family, tmp_path)), lora=LORA, seed=0)
    with pytest.raises(ConfigError, match=words):
        policy.sampler(settings)


@pytest.mark.parametrize(
    "scheduler", [EDMEulerScheduler(), DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)]
)
def test_a_model_of_another_kind_of_diffusion_is_refused_by_its_scheduler(tmp_path: Path, scheduler: SchedulerMixin) -> None:
    policy = load_policy(str(save_tiny("sdxl", tmp_path, scheduler=scheduler)), lora=LORA, seed=0)
    with pytest.raises(ModelError, match=rf"scheduler is {type(scheduler).__name__} .*use a model that was trained with those"):
        policy.sampler(SamplerSettings(steps=5))


FLOWS = [UniPCMultistepScheduler, DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler, DEISMultistepScheduler, SASolverScheduler]


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")  # diffusers' own code
@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flows_shift_is_that_of_its_scheduler_whatever_it_is_called(tmp_path: Path, kind: Any, shift: float) -> None:
    scheduler = kind(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    policy = load_policy(str(save_tiny("sd3", tmp_path, scheduler=scheduler)), lora=LORA, seed=0)
    grid = policy.sampler(SamplerSettings(steps=10)).grid
    scheduler.set_timesteps(10)
    assert torch.equal(grid.timesteps, 1000 * scheduler.sigmas[:-1])
    assert float(grid.previous[-1]) == 0
    after_the_first = shift * 0.9 / (1 + (shift - 1) * 0.9)
    assert float(grid.timesteps[1]) / 1000 == pytest.approx(after_the_first, abs=1e-3)  # the schedulers end at 1/1000, not at 0


def test_a_flows_shift_by_the_pictures_size_is_that_of_its_scheduler(tmp_path: Path) -> None:
    """mu of 16 places is 0.5 + (1.15 - 0.5) (16 - 256) / (4096 - 256), and its levels are those shifted by exp(mu)."""
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, use_dynamic_shifting=True)
    policy = load_policy(str(save_tiny("sd3", tmp_path, scheduler=scheduler)), lora=LORA, seed=0)
    shift = math.exp(0.5 + 0.65 * (16 - 256) / 3840)
    expected = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    expected.set_timesteps(4)
    torch.testing.assert_close(policy.sampler(SamplerSettings(steps=4)).grid.timesteps, 1000 * expected.sigmas[:-1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_flow_model_with_another_models_scheduler_is_refused(tmp_path: Path, family: str) -> None:
    policy = load_policy(
        str(save_tiny(family, tmp_path, scheduler=DDIMScheduler())), lora=LORA, seed=0, settings=PolicySettings(width=8, height=8)
    )
    with pytest.raises(ModelError, match="scheduler is DDIMScheduler, but d3po samples this family by a flow's noise levels"):
        policy.sampler(SamplerSettings(steps=4))


@pytest.mark.parametrize("family", ["stable-diffusion", "sdxl", "sd3", "pixart", "unconditional"])
def test_a_model_that_does_not_say_its_size_asks_for_it(tmp_path: Path, family: str) -> None:
    folder = save_tiny(family, tmp_path)
    config = folder / ("transformer" if family in ("sd3", "pixart") else "unet") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": None}))
    if family in ("sd3", "pixart"):
        with pytest.raises((ModelError, ConfigError)):  # whose transformers cannot be made without
            load_policy(str(folder), lora=LORA, seed=0)
        return
    with pytest.raises(ConfigError, match=r"does not say what size it draws \(sample_size\); set sampling\.width and sampling\.height"):
        load_policy(str(folder), lora=LORA, seed=0)
    assert load_policy(str(folder), lora=LORA, seed=0, settings=PolicySettings(width=16, height=8)).picture_size() == (8, 16)


@pytest.mark.parametrize(("spacing", "steps"), [("linspace", 10), ("trailing", 7), ("leading", 10)])
def test_each_step_ends_where_the_next_begins_but_for_the_strides_of_a_ddim_scheduler(tmp_path: Path, spacing: Spacing, steps: int) -> None:
    chained = load_policy(str(save_tiny("pixart", tmp_path / "pixart")), lora=LORA, seed=0)
    strided = load_policy(str(save_tiny("stable-diffusion", tmp_path / "sd")), lora=LORA, seed=0)
    ends: dict[LastStep, int] = {"model": -1, "clamped": -1 if spacing != "trailing" else 0}
    for last_step, end in ends.items():
        settings = SamplerSettings(steps=steps, spacing=spacing, last_step=last_step)
        grid = chained.sampler(settings).grid
        assert grid.previous.tolist() == [*grid.timesteps[1:].tolist(), end]
        grid = strided.sampler(settings).grid
        assert torch.equal(grid.previous[:-1], grid.timesteps[:-1] - 1000 // steps)


@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler])
def test_noise_is_not_predicted_from_noise_alone_whatever_the_scheduler_keeps_there(tmp_path: Path, kind: Callable[..., Any]) -> None:
    folder = save_tiny("sdxl", tmp_path, scheduler=kind(rescale_betas_zero_snr=True, timestep_spacing="trailing"))
    policy = load_policy(str(folder), lora=LORA, seed=0)
    with pytest.raises(ConfigError, match=r"zero terminal SNR.*sampling\.spacing = 'leading'"):
        policy.sampler(SamplerSettings(steps=5))
    assert policy.sampler(SamplerSettings(steps=5, spacing="leading")).grid.timesteps[0] < 999


def test_a_variance_that_an_unconditional_network_predicts_is_left_aside(tmp_path: Path) -> None:
    pipeline = pipelines.unconditional(out_channels=6)
    pipeline.save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path), lora=LORA, seed=0, settings=PolicySettings(weights="float64"))
    x, t = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor([801, 1])
    with torch.no_grad():
        mean, _ = pipeline.unet.double()(x, t).sample.chunk(2, dim=1)
        assert_same(policy.predict(x, t, policy.encode_prompts(["one", "two"]), 1.0), mean)


def test_a_network_that_asks_for_a_class_is_no_unconditional_one(tmp_path: Path) -> None:
    pipelines.unconditional(num_class_embeds=2).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"takes a class as input.*wrap it as custom:module:function"):
        load_policy(str(tmp_path), lora=LORA, seed=0)


def test_a_transformer_has_no_convolutions_to_adapt_and_says_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no convolution to adapt; try 'attention'"):
        load_policy(str(save_tiny("sd3", tmp_path)), lora=LORA | {"targets": "attention+conv"}, seed=0)


def test_pictures_of_another_size_are_sampled(tmp_path: Path) -> None:
    policy = load_policy(str(save_tiny("sdxl", tmp_path)), lora=LORA, seed=0, settings=PolicySettings(width=16, height=8))
    assert policy.latent_shape == (4, 4, 8)
    assert policy.decode(torch.zeros(1, 4, 4, 8)).shape == (1, 3, 8, 16)


def test_pixart_cleans_prompts_as_its_own_pipeline_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the two packages are installed that cleaning takes; stand-ins here, which leave text as it is."""
    for module in (pipeline_pixart_sigma, pixart):
        for package in ("bs4", "ftfy"):
            monkeypatch.setattr(module, f"is_{package}_available", lambda: True)
    monkeypatch.setattr(pipeline_pixart_sigma, "BeautifulSoup", lambda text, features: SimpleNamespace(text=text), raising=False)
    monkeypatch.setattr(pipeline_pixart_sigma, "ftfy", SimpleNamespace(fix_text=lambda text: text), raising=False)
    policy: Any = load_policy(str(save_tiny("pixart", tmp_path)), lora=LORA, seed=0, settings=PolicySettings())
    prompt = "A <person> at www.a.com/b"

    def plain(*, clean_caption: bool) -> torch.Tensor:
        return policy.pipeline.encode_prompt([prompt], do_classifier_free_guidance=False, clean_caption=clean_caption)[0]

    own = inspect.signature(type(policy.pipeline).__call__).parameters["clean_caption"].default
    ours = policy.encode_prompts([prompt]).given["text"]
    assert torch.equal(ours, plain(clean_caption=own))
    assert not torch.allclose(ours, plain(clean_caption=not own))
