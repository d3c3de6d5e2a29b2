"""`run.toml`: every setting of a run, validated, and written back complete, with a comment on each setting."""

import difflib
import tomllib
from collections.abc import Callable, Set
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import tomlkit
from pydantic import Field, ValidationError, model_serializer, model_validator

from d3po.embedded import DEFAULT
from d3po.errors import ConfigError
from d3po.objective_settings import (
    SETTINGS,
    D3POBranchSettings,
    D3POSettings,
    DDPOSettings,
    DGPOSettings,
    DiffusionDPOSettings,
    DiffusionNFTSettings,
    DPOKSettings,
    FlowDPOSettings,
    IPOSettings,
    IPOStepSettings,
    KTOSettings,
    MaPOSettings,
    ObjectiveName,
    RewardWeightedSettings,
    SFTSettings,
)
from d3po.options import (
    AdapterTargets,
    Arithmetic,
    BranchNoise,
    Choosing,
    Decoding,
    Dividing,
    GuidanceKind,
    JudgedPicture,
    LastStep,
    LogProbReduce,
    OptimizerName,
    QuestionKind,
    ReferenceRefresh,
    SamplerKind,
    Spacing,
    StepWeighting,
    Stored,
    TextEncoders,
    Weights,
)
from d3po.section import Section
from d3po.text import read_text

LARGEST_SEED = 2**64 - 1
"""The largest seed that NumPy and other tools produce."""

Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Images = Annotated[int, Field(ge=2, le=1000)]
"""Pictures of one prompt that are compared. The number of pairs grows with the square of this."""
Pixels = Annotated[int, Field(ge=0, le=32768)]
Side = Annotated[int, Field(ge=1, le=32768)]
Size = Annotated[tuple[Side, Side], Field(strict=False)]
"""Width and height in pixels."""
Timestep = Annotated[int, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]

MOST_APART = 1.5
"""The largest allowed ratio between the areas of two picture sizes of one run."""


Kind = TypeVar("Kind", bound=Section)


class Sampling(Section):
    """How pictures are made."""

    steps: Count = Field(default=20, le=10_000, description="denoising steps T")
    sampler: SamplerKind = Field(
        default="model",
        description="ddim or euler_ancestral (discrete-time models), flow_sde (flow models), or the model's own kind of these",
    )
    eta: float = Field(
        default=1.0, ge=0, description="noise of ddim and euler_ancestral; 1 is ancestral sampling, 0 has no density to train on"
    )
    noise_level: float = Field(default=0.7, gt=0, description="noise of flow_sde: a in s = a sqrt(sigma / (1 - sigma))")
    guidance: float = Field(default=5.0, ge=0, description="guidance scale, in sampling and in training; 1 is none")
    guidance_kind: GuidanceKind = Field(
        default="model",
        description="cfg (classifier-free), embedded (the network takes the scale as input), none, or what the model was made for",
    )
    max_sequence_length: int = Field(
        default=0,
        ge=0,
        le=512,
        description="tokens given to a T5 text encoder, as diffusers' argument of that name; 0 is the pipeline's default",
    )
    guidance_range: tuple[Timestep, Timestep] = Field(
        default=(0, 1000),
        strict=False,
        description="guidance is applied only at timesteps in this range, ends included; elsewhere the scale is 1",
    )
    negative_prompt: str = Field(default="", description="what classifier-free guidance moves away from")
    width: Pixels = Field(default=0, description="width of the pictures in pixels; 0 is the model's default")
    height: Pixels = Field(default=0, description="height of the pictures in pixels; 0 is the model's default")
    buckets: list[Size] = Field(
        default=[],
        description="sizes to train on, as [width, height], all of about the same area; each prompt gets one of them at random; empty: width and height",
    )
    zero_terminal_snr: bool = Field(
        default=False, description="rescale the noise schedule to zero terminal SNR (for v prediction; use it with spacing = trailing)"
    )
    inpaint_image: str = Field(default="", description="inpainting models: the picture whose masked part is repainted")
    inpaint_mask: str = Field(default="", description="inpainting models: the mask of that picture, white where it is repainted")
    spacing: Spacing | Literal["model"] = Field(
        default="model", description="timestep spacing: leading, trailing, linspace, or the model's default"
    )
    last_step: LastStep = Field(
        default="model",
        description="where the last step ends: model (as the model's scheduler says), or clamped (at timestep 0, as in the published code)",
    )
    images_per_prompt: Images = Field(default=4, description="K, the images of each prompt, which are compared with each other")
    branch: bool = Field(
        default=False,
        description="a prompt's images share all noise up to one randomly drawn step and diverge there; d3po_branch needs this",
    )
    branch_noise: BranchNoise = Field(
        default="onward",
        description="with branch, which noise is each image's own: onward (that of all steps from the branching step on), or step (that step's alone, "
        "so that whatever differs comes from it)",
    )
    judged: JudgedPicture = Field(
        default="finished",
        description="which pictures are compared: finished (the final ones), or expected (the network's estimate right after the branching step)",
    )
    shared_start: bool = Field(default=True, description="all images of a prompt start from the same x_T")
    prompts_per_round: Count = Field(default=16, description="prompts drawn for each round")
    prompts_per_shard: Count = Field(default=8, description="prompts sampled in one batch and stored in one file")
    stored: Stored = Field(default="float32", description="precision of stored latents; use float64 together with weights = 'float64'")


class Feedback(Section):
    """Who says which picture is better, and how they are asked."""

    source: Literal["reward", "human", "model", "imported"] = Field(
        default="reward",
        description="who compares pictures: reward (the setting below), human (people, through `d3po rate`), model (see [vlm_judge]), or imported (votes "
        "from `d3po votes import`)",
    )
    reward: Name = Field(
        default="colourfulness",
        description="a scorer of `d3po scorers`, module:function, weighted:0.7*A+3*B or pareto:A+B; where people or a model compare, it is only plotted",
    )
    temperature: float = Field(default=0.0, ge=0, description="Bradley-Terry noise of the simulated annotator, in units of the reward")
    tie_band: float = Field(default=0.0, ge=0, description="differences up to this are ties, in units of the reward")
    pairs_per_prompt: int = Field(default=0, ge=0, description="pairs asked about, chosen at random; 0 asks about all of them")
    ask: QuestionKind = Field(
        default="pair",
        description="how people are asked: pair, best_worst or rank of the K images, grid (mark the bad ones), thumb, score (1 to 5)",
    )
    choose: Choosing = Field(
        default="random",
        description="which pairs are asked where pairs_per_prompt leaves some out: random, or adaptive (the most informative ones, given the votes so far)",
    )
    overlap: Count = Field(default=1, description="how many people answer each question")
    quota: int = Field(default=0, ge=0, description="votes after which a round is trained; 0 waits for every question")
    deadline_minutes: float = Field(default=0.0, ge=0, description="minutes after which a round is trained on the votes it has; 0 waits")


class VLMJudge(Section):
    """The vision-language model that compares pictures where `feedback.source` is "model"."""

    url: str = Field(
        default="", description="an OpenAI-compatible endpoint up to /v1, such as http://localhost:8000/v1; no other address is contacted"
    )
    model: str = Field(default="", description="the model's name at that endpoint")
    criterion: Name = Field(
        default="Which picture shows better what the prompt describes?",
        description="the question by which pictures are compared; ask one question, not several",
    )
    key_variable: Name = Field(
        default="OPENAI_API_KEY", description="the environment variable that holds the API key; if it is unset, no key is sent"
    )
    concurrency: Count = Field(default=4, le=1000, description="concurrent calls")
    timeout_seconds: float = Field(default=60.0, gt=0, description="timeout of one attempt, in seconds")
    attempts: Count = Field(default=6, description="attempts for each call, with growing waits between them")
    input_price: float = Field(default=0.0, ge=0, description="price of a million input tokens; 0 for a model of your own")
    output_price: float = Field(default=0.0, ge=0, description="price of a million output tokens")
    max_cost: float = Field(default=0.0, ge=0, description="no more calls are made once the run's calls have cost this much; 0 is no limit")
    picture_tokens: Count = Field(default=1000, description="tokens that one picture counts as, for the cost estimate")
    answer_tokens: Count = Field(default=400, description="the most tokens an answer may have; a reasoning model needs thousands")
    min_consistency: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="training is refused if the model gives the same answer in both orders for a smaller share of the pairs",
    )


class Adapter(Section):
    """What is trained."""

    method: Literal["lora", "full"] = Field(default="lora", description="a low-rank adapter, or every weight of the denoiser")
    start_from: str = Field(
        default="",
        description="a LoRA (in diffusers', peft's or Kohya's format) that is merged into the model, and so into the reference, before training",
    )
    rank: Count = Field(default=4, le=65_536, description="LoRA rank")
    alpha: float = Field(default=4.0, gt=0, description="LoRA alpha; the adapter is scaled by alpha / rank")
    targets: AdapterTargets = Field(
        default="attention", description="layers that get an adapter: attention, attention+conv (for U-Nets), linear (every linear layer)"
    )


class Objective(Section):
    """The loss on preferences. Each objective has its own table of settings; a run has only the table of the objective that it names."""

    name: ObjectiveName = Field(default="d3po", description="the objective; `d3po objectives` lists them and what they need")
    log_prob: LogProbReduce = Field(
        default="mean", description="log-prob of a step: mean over the latent dimensions (published) or their sum"
    )
    step_weighting: StepWeighting = Field(
        default="uniform", description="uniform, or balanced: steps are weighted so that none dominates the gradient"
    )
    reference: ReferenceRefresh = Field(
        default="per_round",
        description="fixed: the pretrained model; per_round: the policy at the round's start; ema: a moving average of those",
    )
    reference_decay: float = Field(
        default=0.5, ge=0, lt=1, description="ema reference: the share of the old reference that each round keeps"
    )
    d3po: D3POSettings = D3POSettings()
    d3po_branch: D3POBranchSettings = D3POBranchSettings()
    ipo_step: IPOStepSettings = IPOStepSettings()
    ddpo: DDPOSettings = DDPOSettings()
    dpok: DPOKSettings = DPOKSettings()
    reward_weighted: RewardWeightedSettings = RewardWeightedSettings()
    sft: SFTSettings = SFTSettings()
    diffusion_dpo: DiffusionDPOSettings = DiffusionDPOSettings()
    flow_dpo: FlowDPOSettings = FlowDPOSettings()
    ipo: IPOSettings = IPOSettings()
    dgpo: DGPOSettings = DGPOSettings()
    diffusion_nft: DiffusionNFTSettings = DiffusionNFTSettings()
    kto: KTOSettings = KTOSettings()
    mapo: MaPOSettings = MaPOSettings()

    @property
    def settings(self) -> Section:
        """The settings table of the objective that `name` names."""
        return getattr(self, self.name)

    def unread(self) -> Set[str]:
        return SETTINGS.keys() - {self.name}

    @model_validator(mode="after")
    def _no_table_of_another_objective(self) -> "Objective":
        if given := sorted(self.model_fields_set & self.unread()):
            raise ValueError(
                f"[objective.{given[0]}] is set, but objective.name is {self.name!r}, which does not read it; remove it, or "
                f"set objective.name to {given[0]!r}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unread(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if key not in self.unread()}


class Training(Section):
    """How the policy is trained."""

    optimizer: OptimizerName = Field(
        default="adamw",
        description="adamw, or adamw8bit, which needs a quarter of its memory (install d3po[8bit]; it matters for adapter.method = full)",
    )
    learning_rate: float = Field(default=3e-5, gt=0, description="AdamW learning rate")
    weight_decay: float = Field(default=1e-4, ge=0, description="AdamW weight decay")
    adam_betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), strict=False, description="AdamW betas")
    max_grad_norm: float = Field(default=1.0, gt=0, description="gradients are clipped to this L2 norm")
    epochs: Count = Field(default=1, le=100_000, description="passes over each round's comparisons")
    prompts_per_update: Count = Field(default=1, description="prompts whose pairs make one optimizer step")
    timestep_fraction: Fraction = Field(
        default=1.0, description="share of the denoising steps trained in each update; which ones is drawn at random for each update"
    )
    timestep_range: tuple[Timestep, Timestep] = Field(
        default=(0, 1000), strict=False, description="only timesteps in this range, ends included, are trained"
    )
    micro_batch_size: Count = Field(
        default=64, description="images times timesteps in one network call; lower it if memory runs out, the results do not change"
    )
    guided: bool = Field(
        default=True,
        description="train the guided prediction, as it is sampled; false trains the conditional prediction alone, at half the cost",
    )
    mixed_precision: Literal["no", "fp16", "bf16"] = Field(default="no", description="autocast precision of the network")
    gradient_checkpointing: bool = Field(default=False, description="less memory, more time, same result")
    target_kl: float = Field(
        default=0.0,
        ge=0,
        description="the learning rate falls as the KL to the reference approaches this, in nats per latent dimension; 0 is off",
    )
    policy_ema: float = Field(default=0.0, ge=0, lt=1, description="decay of averaged weights used for evaluation and export; 0 is off")
    checkpoint_every: Count = Field(default=8, description="updates between checkpoints")


class Evaluation(Section):
    """How progress is measured on held-out prompts."""

    prompts: Count = Field(default=16, description="how many held-out prompts")
    images_per_prompt: Images = Field(default=4, description="images of each held-out prompt, for each policy")
    held_out_reward: str = Field(
        default="",
        description="a second reward, measured on the same pictures and never trained on; it shows when the first one is being exploited",
    )
    every_round: bool = Field(default=True, description="measure after every round, not only at the end")
    blind_questions: int = Field(
        default=16,
        ge=0,
        le=1000,
        description="runs judged by people: questions of the blind test (base or tuned?) after the last round; the run waits for them. 0 asks none",
    )
    blind_between_rounds: int = Field(
        default=4,
        ge=0,
        le=1000,
        description="blind questions mixed into each later round, about the current policy; the run does not wait for them. Needs every_round",
    )


class Guards(Section):
    """Limits that stop a run that goes wrong."""

    max_kl: float = Field(
        default=0.2, gt=0, description="stop when a step's KL to the reference exceeds this, in nats per latent dimension"
    )
    min_diversity: float = Field(default=0.6, ge=0, le=1, description="stop when diversity falls below this share of the base model's")
    max_checkerboard: float = Field(
        default=1.6, gt=0, description="stop when 2x2 checkerboard energy rises above this multiple of the base model's"
    )
    max_clipped: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="stop when ratio clipping zeroes more than this share of the gradients in the second half of a round",
    )
    min_held_out: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="stop as over-optimised when the win rate by feedback.reward is up and the one by evaluation.held_out_reward is below this",
    )
    action: Literal["warn", "rollback", "stop"] = Field(
        default="stop",
        description="warn: only say so; rollback: undo the round and continue from the policy before it at half the learning rate; stop: end the run",
    )


class Tracking(Section):
    """Where metrics go, besides metrics.jsonl."""

    tensorboard: bool = Field(default=True, description="write TensorBoard events")
    wandb: bool = Field(default=False, description="also log to Weights & Biases (needs d3po[wandb])")


class Hardware(Section):
    """Settings that save memory or time. Pictures and updates stay the same, up to rounding."""

    decoding: Decoding = Field(
        default="whole",
        description="whole: decode all pictures of a batch at once; sliced: one by one; tiled: one by one in tiles, which may change large pictures slightly",
    )
    text_encoders: TextEncoders = Field(
        default="keep",
        description="keep: on the device; offload and free: encode each prompt once, cache it in embeddings/, and move the encoders to the CPU or unload them",
    )
    compile: bool = Field(default=False, description="torch.compile the denoiser: takes minutes at the start, then steps are faster")
    divide: Dividing = Field(
        default="no",
        description="shard the denoiser's frozen weights across the processes of the run, for models that do not fit on one device: no, "
        "fsdp (torch's FSDP2) or zero3 (DeepSpeed's ZeRO-3; install d3po[deepspeed])",
    )
    deepspeed: str = Field(
        default="",
        description="for zero3: a JSON file of DeepSpeed settings, such as offload_param; empty: the settings that need least memory",
    )
    channels_last: bool = Field(
        default=False, description="store the denoiser's convolutions in channels-last layout, which is faster for U-Nets on many devices"
    )
    halve_on_out_of_memory: bool = Field(
        default=True, description="halve a batch that does not fit into memory, and say so once; false stops the run instead"
    )

    @property
    def may_halve(self) -> bool:
        """Whether batches are halved. Those of a sharded network are not, because one of its processes may run out of memory alone."""
        return self.halve_on_out_of_memory and self.divide == "no"


class RunConfig(Section):
    """All settings of a run."""

    model: Name = Field(
        default=DEFAULT,
        description="emoji or emoji-32 (embedded), a folder in diffusers' layout, a .safetensors file, a hub id, or custom:module:function",
    )
    parts: str = Field(
        default="", description="folder or hub id of a pipeline from which a single-file model takes the components its file lacks"
    )
    weights: Weights = Field(
        default="float32",
        description="precision of the frozen weights. With half precision the adapter and the autoencoder stay in float32; float64 applies to all of "
        "them, doubles the memory, and helps to tell rounding from a bug",
    )
    arithmetic: Arithmetic = Field(
        default="weights",
        description="precision in which the denoiser computes: weights (that of its weights), or float32 (each layer's weights are cast when it is called)",
    )
    recipe: Name = Field(default="default", description="the recipe this file was made from")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="the seed of everything random")
    database: str = Field(
        default="", description="where votes are kept: empty for d3po.db in the run folder, or postgresql://user@host/name"
    )
    rounds: Count = Field(default=5, le=100_000, description="how many times to sample, compare and train")
    sampling: Sampling = Sampling()
    feedback: Feedback = Feedback()
    vlm_judge: VLMJudge = VLMJudge()
    adapter: Adapter = Adapter()
    objective: Objective = Objective()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    guards: Guards = Guards()
    tracking: Tracking = Tracking()
    hardware: Hardware = Hardware()

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        if self.sampling.eta == 0:
            raise ValueError("sampling.eta is 0: deterministic steps have no log-prob to train; set it above 0, 1 is usual")
        if self.feedback.source == "model" and not (self.vlm_judge.url and self.vlm_judge.model):
            raise ValueError(
                "feedback.source is 'model', which needs vlm_judge.url and vlm_judge.model: an endpoint and a model's name there"
            )
        areas = [width * height for width, height in self.sampling.buckets]
        if areas and max(areas) > MOST_APART * min(areas):
            raise ValueError(
                f"sampling.buckets has areas from {min(areas)} to {max(areas)} pixels; log-probs grow with the area, so give sizes of about the same area, "
                f"the largest at most {MOST_APART} times the smallest"
            )
        if self.adapter.method == "full" and self.objective.reference != "per_round":
            raise ValueError(
                f"objective.reference is {self.objective.reference!r}, which needs an adapter that can be switched off; "
                "with adapter.method = 'full' set it to 'per_round'"
            )
        if self.hardware.deepspeed and self.hardware.divide != "zero3":
            raise ValueError(
                f"hardware.deepspeed is {self.hardware.deepspeed}, but it is only read with hardware.divide = 'zero3', which is {self.hardware.divide!r}; "
                "set hardware.divide to 'zero3', or hardware.deepspeed to ''"
            )
        if self.hardware.divide != "no" and (self.adapter.method == "full" or self.hardware.channels_last or self.hardware.compile):
            raise ValueError(
                f"hardware.divide is {self.hardware.divide!r}, which shards the frozen weights as they are stored; set adapter.method = 'lora', and "
                "hardware.channels_last and hardware.compile to false"
            )
        if self.adapter.method == "full" and self.weights in ("bfloat16", "float16"):
            raise ValueError(
                f"weights is {self.weights!r}, but adapter.method = 'full' trains them, and small updates vanish in half precision; "
                "set it to 'float32', and training.mixed_precision to 'bf16' if memory is short"
            )
        if self.arithmetic == "float32" and (self.hardware.divide != "no" or self.training.mixed_precision != "no"):
            raise ValueError(
                "arithmetic is 'float32', which cannot be combined with hardware.divide or training.mixed_precision; "
                "set it to 'weights', or hardware.divide and training.mixed_precision to 'no'"
            )
        if self.weights == "float64" and (
            self.arithmetic != "weights"
            or self.training.mixed_precision != "no"
            or self.training.optimizer != "adamw"
            or self.hardware.divide == "zero3"
        ):
            raise ValueError(
                "weights is 'float64', which cannot be combined with arithmetic = 'float32', training.mixed_precision, training.optimizer = 'adamw8bit' "
                "or hardware.divide = 'zero3'; set those to 'weights', 'no', 'adamw' and 'no' or 'fsdp', or weights to 'float32'"
            )
        if self.feedback.choose == "adaptive" and (self.feedback.ask != "pair" or self.feedback.pairs_per_prompt == 0):
            raise ValueError(
                f"feedback.choose is 'adaptive', but feedback.ask is {self.feedback.ask!r} and feedback.pairs_per_prompt is "
                f"{self.feedback.pairs_per_prompt}; pairs are chosen where feedback.ask = 'pair' and pairs_per_prompt is above 0"
            )
        for name, (low, high) in (
            ("training.timestep_range", self.training.timestep_range),
            ("sampling.guidance_range", self.sampling.guidance_range),
        ):
            if low > high:
                raise ValueError(f"{name} is [{low}, {high}]; the first must not exceed the second")
        return self


RENAMED = {"judge": "vlm_judge", "training.max_rows": "training.micro_batch_size"}
"""Former names of settings and tables, and their present names."""
FORMERLY_SHARED = {"beta", "clip", "clip_range", "alpha", "temperature", "dislike_weight", "sharpness", "targets"}
"""Settings that `[objective]` once held for all objectives. Each objective now has them in its own table."""


def load_config(path: Path) -> RunConfig:
    """Read and validate a run.toml.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key (the nearest is suggested) or a value out of range.
    """
    return parse_config(read_toml(path), where=str(path))


def under_new_names(values: dict[str, Any]) -> dict[str, Any]:
    """Return a run's recorded settings with former names replaced by the present ones."""
    renamed = {**values}
    for old, new in RENAMED.items():
        table, _, last = old.rpartition(".")
        holder = renamed.get(table) if table else renamed
        if isinstance(holder, dict) and last in holder:
            changed = {new.rpartition(".")[2] if key == last else key: value for key, value in holder.items()}
            renamed = renamed | {table: changed} if table else changed
    return _with_objective_table(renamed)


def _with_objective_table(values: dict[str, Any]) -> dict[str, Any]:
    """Move settings that only one objective reads from `[objective]` into that objective's table.

    Older versions kept them all in `[objective]`, where "own" meant the objective's default. Still older versions wrote all of them, and 0 meant
    the default.
    """
    objective = values.get("objective")
    if not isinstance(objective, dict) or not (flat := objective.keys() & FORMERLY_SHARED):
        return values
    numbers = FORMERLY_SHARED - {"clip", "targets"}
    all_numbers = all(isinstance(objective.get(key), int | float) for key in numbers)
    unset = {key for key in flat if objective[key] == "own" or (all_numbers and key in numbers and objective[key] == 0)}
    name = objective.get("name", Objective().name)
    read = SETTINGS[name].model_fields.keys() & (flat - unset) if name in SETTINGS else set[str]()
    kept = {key: value for key, value in objective.items() if key not in flat}
    return values | {"objective": kept | {name: {key: objective[key] for key in sorted(read)}}}


def read_toml(path: Path) -> dict[str, Any]:
    """Read the values of a TOML file.

    Raises:
        ConfigError: unreadable, or not TOML.
    """
    try:
        return tomllib.loads(read_text(path, ConfigError))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def parse_config(values: dict[str, Any], *, where: str) -> RunConfig:
    """Validate the settings of a run. `where` names their source in messages.

    Raises:
        ConfigError: an unknown key (the nearest is suggested) or a value out of range.
    """
    return parse(RunConfig, values, where=where)


def parse(kind: type[Kind], values: dict[str, Any], *, where: str) -> Kind:
    """Validate the values of a settings file as a table of the given kind. `where` names the file in messages.

    Raises:
        ConfigError: an unknown key (the nearest is suggested) or a value out of range.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = min(
            error.errors(), key=lambda each: each["type"] != "extra_forbidden"
        )  # a misspelt key is reported as missing too; show the misspelling
        raise ConfigError(f"{where}: {_explain(kind, values, first['loc'], first['type'], first['msg'], first['input'])}") from error


def override(config: RunConfig, assignments: dict[str, str], *, where: str) -> RunConfig:
    """Return the config with dotted keys replaced, such as {"training.epochs": "2"}.

    Values are written as in TOML. A bare word is text, and so is every value of a text setting: a model's folder may be called 2024 or nan.

    Raises:
        ConfigError: an unknown key (the nearest is suggested) or a value out of range.
    """
    values = config.model_dump(mode="json")
    if _toml_value(assignments.get("objective.name", config.objective.name)) != config.objective.name:
        del values["objective"][config.objective.name]  # the new objective does not read this table
    for key, text in assignments.items():
        table = values
        *parents, last = key.split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{where}: {key} names a setting inside {parent!r}, which is a single value")
        value = _toml_value(text)
        table[last] = value if isinstance(value, str) or not _is_text(key) else text
    return parse_config(values, where=where)


def _toml_value(text: str) -> Any:
    try:
        values = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return values["value"] if len(values) == 1 else text


def _is_text(key: str) -> bool:
    """Whether the setting with this dotted name is free text."""
    kind: Any = RunConfig
    for name in key.split("."):
        fields = getattr(kind, "model_fields", {})
        kind = fields[name].annotation if name in fields else None
    return kind is str


def dump_config(config: RunConfig) -> str:
    """Write a config as the text of a complete run.toml, with a comment on each setting."""
    document = tomlkit.document()
    document.add(
        tomlkit.comment(
            "All settings of this run. docs/configuration.md says which may be changed once the run has begun; other changes need a new run folder."
        )
    )
    _fill(document, config)
    return tomlkit.dumps(document)


def _fill(table: Any, section: Section) -> None:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if name in section.unread():
            continue
        if isinstance(value, Section):
            inner = tomlkit.table()
            inner.comment((type(value).__doc__ or "").strip())
            _fill(inner, value)
            table[name] = inner
        else:
            entry = tomlkit.item(list(value) if isinstance(value, tuple) else value)
            table[name] = entry.comment(field.description or "")


def _explain(root: type[Section], values: dict[str, Any], location: tuple[int | str, ...], kind: str, message: str, given: Any) -> str:
    named = [str(part) for part in location if kind == "extra_forbidden" or str(part).isalnum() or str(part).isidentifier()]
    key, message = (
        ".".join(named),
        message.removeprefix("Value error, "),
    )  # the parts left out of `named` are pydantic's names of a union's alternatives
    if kind == "extra_forbidden":
        if key in RENAMED:
            return f"{key} is now called {RENAMED[key]}; use that name"
        if location[:1] == ("objective",) and len(location) == 2 and location[1] in FORMERLY_SHARED:
            return _moved_setting(str(location[1]), str(values["objective"].get("name", Objective().name)))
        known = _known_keys(root, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        return f"unknown setting {key!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known here are {', '.join(known)}")
    if kind == "missing":
        return f"{key} is missing; set it"
    return f"{key} is {given!r}: {message}" if key else message


def _moved_setting(key: str, name: str) -> str:
    readers = [other for other, settings in SETTINGS.items() if key in settings.model_fields]
    if name in readers:
        return f"objective.{key} is now called objective.{name}.{key}, because each objective has its own table; use that name"
    of = ", ".join(f"objective.{other}.{key}" for other in readers)
    return f"objective.{key} is now a setting of the objectives that read it ({of}), and {name!r} is not one of them; remove it"


def _known_keys(root: type[Section], location: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at this location. A number in the location is an index into a list of tables."""
    table: Any = root
    for part in location:
        table = get_args(table)[0] if isinstance(part, int) else table.model_fields[part].annotation
    return list(table.model_fields)
