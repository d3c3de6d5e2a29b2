"""What an objective needs and a run lacks, said before any work is done."""

from importlib.util import find_spec

from d3po.config import RunConfig
from d3po.diffusion.flow import FlowSDE
from d3po.errors import ConfigError
from d3po.models.replay import Replay
from d3po.objectives.registry import OBJECTIVES, for_model


def check_needs(config: RunConfig) -> None:
    """Hold the objective's needs, and the judge's, against the settings and what is installed.

    Raises:
        ConfigError: something is missing; the message says what would mend it.
    """
    if config.feedback.source == "model" and find_spec("tenacity") is None:
        raise ConfigError("feedback.source is 'model', which needs tenacity, not installed here; `pip install 'd3po[vision]'`")
    name = config.objective.name
    needs = OBJECTIVES[name].needs
    if needs.evidence == "trajectories" and config.feedback.source == "imported":
        others = ", ".join(other for other, entry in OBJECTIVES.items() if entry.needs.evidence == "pictures")
        raise ConfigError(
            f"objective.name is {name!r}, which reads the denoising steps of pictures, and imported pictures have none; set it to one of {others}, "
            "or feedback.source to 'reward' or 'human'"
        )
    if needs.same_state and not config.sampling.branch:
        raise ConfigError(f"objective.name is {name!r}, which needs pictures that part in one step; set sampling.branch = true")
    if config.sampling.branch and needs.evidence == "pictures":
        raise ConfigError(
            f"sampling.branch is true, but objective.name is {name!r}, which reads no denoising step; set sampling.branch = false"
        )
    if config.sampling.branch and not config.sampling.shared_start:
        raise ConfigError("sampling.branch is true, so a prompt's images share all noise up to a step; set sampling.shared_start = true")
    if config.sampling.judged == "expected" and not config.sampling.branch:
        raise ConfigError(
            "sampling.judged is 'expected', which is of pictures that part in one step; set it to 'finished', or sampling.branch to true"
        )
    if config.adapter.method == "full" and not config.training.guided:
        raise ConfigError(
            "training.guided is false, so the sampler's log-probs have to be computed anew by the model as it was, of which adapter.method = 'full' "
            "keeps no copy; set training.guided = true or adapter.method = 'lora'"
        )
    if config.adapter.method == "full" and (needs.exact_kl or (needs.evidence == "pictures" and needs.reference != "none")):
        raise ConfigError(
            f"objective.name is {name!r}, which asks the model as it was before training, and adapter.method = 'full' keeps no copy of it; "
            "set adapter.method = 'lora'"
        )


def check_model(config: RunConfig, replay: Replay) -> None:
    """Hold the objective against the kind of model, and against how it is sampled.

    Raises:
        ConfigError: it was made for the other kind, or the sampler leaves it nothing to learn from.
    """
    flow = isinstance(replay.transition, FlowSDE)
    if (fitting := for_model(config.objective.name, flow=flow)) != config.objective.name:
        kind = "is a flow model" if flow else "is no flow model"
        raise ConfigError(f"objective.name is {config.objective.name!r}, but the model {kind}; set it to {fitting!r}")
    sampled = config.feedback.source != "imported"
    if sampled and not replay.transition.stochastic(replay.grid).any():
        trained = OBJECTIVES[config.objective.name].needs.evidence == "trajectories"
        if trained or config.sampling.shared_start:
            all_alike = (
                "a prompt's images, which share their start, are all the same" if config.sampling.shared_start else "no step has a density"
            )
            raise ConfigError(
                f"sampling.steps is {config.sampling.steps}, of which none is random, so {all_alike} and nothing can be learnt; raise sampling.steps"
            )
