"""What others may import, pinned: a name that goes or comes is a change that users see."""

import importlib
import inspect

import pytest

INTERFACE = {
    "d3po": ["Run", "__version__"],
    "d3po.library": ["EvaluationResult", "Picture", "Run", "ImportedVotes"],
    "d3po.objectives": [
        "D3PO", "DDPO", "DGPO", "DPOK", "DiffusionDPO", "DiffusionNFT", "IPO", "ImageObjective", "ImageTerms", "KTO", "MaPO", "Needs",
        "OBJECTIVES", "PairObjective", "RewardWeighted", "SFT", "build",
    ],
    "d3po.diffusion": [
        "CleanSample", "DDIM", "Epsilon", "EulerAncestral", "FlowSDE", "GaussianStep", "NoiseSchedule", "NoiseStreams", "Parameterization",
        "ReverseStep", "RolloutStep", "StepGrid", "Transition", "Velocity", "flow_grid", "kl_of_steps", "rollout", "seeded", "step_grid",
    ],
    "d3po.preferences": [
        "Answer", "Comparison", "ImageLabel", "NewQuestion", "PairJudgement", "Vote", "comparisons_of", "labels_of", "pair_judgements",
    ],
}  # fmt: skip
METHODS = [
    "ask_blind", "change", "close", "compare", "config", "create", "evaluate", "export", "generate", "open", "path", "pictures", "pipeline", "plan",
    "report", "round", "run", "sample", "serve", "train", "votes",
]  # fmt: skip


@pytest.mark.parametrize("package", INTERFACE)
def test_a_package_offers_what_is_documented_and_each_of_it_says_what_it_is(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(INTERFACE[package])
    for name in module.__all__:
        offered = getattr(module, name)
        assert not (inspect.isclass(offered) or inspect.isfunction(offered)) or inspect.getdoc(offered), name


def test_a_run_has_these_methods_and_each_says_what_it_does() -> None:
    run = importlib.import_module("d3po.library").Run
    assert sorted(name for name in vars(run) if not name.startswith("_")) == METHODS
    assert all(inspect.getdoc(getattr(run, name)) for name in METHODS)
