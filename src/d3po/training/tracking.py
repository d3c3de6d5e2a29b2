"""Tracking of a run at Weights & Biases."""

import hashlib
from importlib import import_module
from pathlib import Path
from typing import Any

from d3po.config import RunConfig
from d3po.errors import ConfigError


def start_wandb(run: Path, config: RunConfig) -> Any:
    """Begin or continue the run at Weights & Biases. All commands on one run folder are one run there.

    Raises:
        ConfigError: wandb is not installed, its key is wrong, or its server cannot be reached.
    """
    try:
        library = import_module("wandb")
    except ImportError as error:
        raise ConfigError("tracking.wandb is on but wandb is not installed; `pip install 'd3po[wandb]'` or set it to false") from error
    try:
        return library.init(
            project="d3po",
            name=run.resolve().name,
            config=config.model_dump(mode="json", exclude={"database"}),
            resume="allow",
            id=hashlib.sha256(str(run.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16],
        )
    except Exception as error:  # wandb raises errors of its own, of its network library and of its service
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"tracking.wandb is on, but Weights & Biases cannot be used: {first}; correct the key with `wandb login`, set WANDB_MODE=offline, or set "
            "tracking.wandb to false"
        ) from error
