"""Checks that the settings and the model meet the needs of the objective, before any work is done."""

from importlib.util import find_spec

from d3po.config import RunConfig
from d3po.diffusion.flow import FlowSDE
from d3po.errors import ConfigError
from d3po.models.replay import Replay
from d3po.objectives.registry import OBJECTIVES, for_model


def check_needs(config: RunConfig) -> None:
    """Check the settings and the installed packages against what the objective and the feedback need.

    Raises:
        ConfigError: something is missing; the message says how to fix it.
    """
    if config.feedback.source == "model" and find_spec("tenacity") is None:
        raise ConfigError("feedback.source is 'model', which needs the package tenacity; install it with `pip install 'd3po[vision]'`")
    name = config.objective.name
    needs = OBJECTIVES[name].needs
    if needs.evidence == "trajectories" and config.feedback.source == "imported":
        others = ", ".join(other for other, entry in OBJECTIVES.items() if entry.needs.evidence == "pictures")
        raise ConfigError(
            f"objective.name is {name!r}, which reads the denoising steps of pictures, and imported pictures have none; set it to one of {others}, "
            "or feedback.source to 'reward' or 'human'"
        )
    if needs.same_state and not config.sampling.branch:
        raise ConfigError(f"objective.name is {name!r}, which needs pictures that diverge at one step; set sampling.branch = true")
    if config.sampling.branch and needs.evidence == "pictures":
        raise ConfigError(
            f"sampling.branch is true, but objective.name is {name!r}, which does not read denoising steps; set sampling.branch = false"
        )
    if config.sampling.branch and not config.sampling.shared_start:
        raise ConfigError("sampling.branch is true, so a prompt's images share all noise up to a step; set sampling.shared_start = true")
    if config.sampling.branch_noise == "step" and not config.sampling.branch:
        raise ConfigError(
            "sampling.branch_noise is 'step', which needs pictures that diverge at one step; set it to 'onward', or sampling.branch to true"
        )
    if config.sampling.judged == "expected" and not config.sampling.branch:
        raise ConfigError(
            "sampling.judged is 'expected', which needs pictures that diverge at one step; set it to 'finished', or sampling.branch to true"
        )
    if config.adapter.method == "full" and not config.training.guided:
        raise ConfigError(
            "training.guided is false, so the sampler's log-probs must be computed again with the policy at the round's start, but "
            "adapter.method = 'full' keeps no copy of it; set training.guided = true or adapter.method = 'lora'"
        )
    if config.adapter.method == "full" and (needs.exact_kl or (needs.evidence == "pictures" and needs.reference != "none")):
        raise ConfigError(
            f"objective.name is {name!r}, which needs the model as it was before training, and adapter.method = 'full' keeps no copy of it; "
            "set adapter.method = 'lora'"
        )


def check_model(config: RunConfig, replay: Replay) -> None:
    """Check the objective against the kind of model and its sampler.

    Raises:
        ConfigError: the objective is for the other kind of model, or the sampler leaves it nothing to learn from.
    """
    flow = isinstance(replay.transition, FlowSDE)
    if (suitable := for_model(config.objective.name, flow=flow)) != config.objective.name:
        kind = "is a flow model" if flow else "is not a flow model"
        raise ConfigError(f"objective.name is {config.objective.name!r}, but the model {kind}; set it to {suitable!r}")
    sampled = config.feedback.source != "imported"
    if sampled and not replay.transition.stochastic(replay.grid).any():
        trained = OBJECTIVES[config.objective.name].needs.evidence == "trajectories"
        if trained or config.sampling.shared_start:
            all_alike = (
                "a prompt's images, which start from the same noise, are all the same"
                if config.sampling.shared_start
                else "no step has a density"
            )
            raise ConfigError(
                f"sampling.steps is {config.sampling.steps}, and none of these steps is random, so {all_alike} and nothing can be learnt; "
                "raise sampling.steps"
            )
