"""Export: the result for people who have diffusers and nothing else."""

from pathlib import Path

from d3po.errors import RunFolderError
from d3po.run.card import write_card
from d3po.run.loop import result_rounds
from d3po.run.workbench import Workbench


def export_result(bench: Workbench, directory: Path) -> list[Path]:
    """Write the result's LoRA, the merged model and a card that says what they are; averaged weights where the run keeps them.

    Raises:
        RunFolderError: nothing has been trained yet.
    """
    rounds = result_rounds(bench)
    if rounds == 0:
        raise RunFolderError(f"{bench.folder.path} has no trained round to export; train one with `d3po run {bench.folder.path}`")
    bench.stand_at(rounds)
    if bench.trainer.average is not None:
        bench.policy.load_state(bench.trainer.average)
    written = bench.policy.export(directory)
    return [*written, write_card(bench, directory, rounds, written)]
