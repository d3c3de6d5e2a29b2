"""Starts several processes on this machine with torch's launcher, which ends all of them when one dies."""

import logging
import os
import signal
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from d3po.errors import D3POError


def launch(arguments: Sequence[str], processes: int) -> None:
    """Run `d3po ARGUMENTS` in that many processes, and wait for their end.

    Raises:
        D3POError: a process was killed.
        SystemExit: a process failed and has printed the reason.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the error is reported once, below
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="d3po",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "d3po", *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            raise SystemExit(failure.exitcode) from error
        raise D3POError(
            f"process {rank} of {processes} was killed by {signal.Signals(-failure.exitcode).name}, so the others were stopped too; what was saved "
            "is intact: run the same command again to continue (a common reason is lack of memory, see docs/memory.md)"
        ) from error
