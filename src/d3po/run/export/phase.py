"""Exports the result in formats that need only diffusers."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from d3po.errors import RunFolderError, storage_errors
from d3po.run.export.card import write_card
from d3po.run.loop import result_rounds
from d3po.run.session import Session


def export_result(session: Session, directory: Path) -> list[Path]:
    """Write the result's LoRA, the merged model and a model card, and return their paths. If the run keeps averaged weights, they are exported.

    Raises:
        RunFolderError: nothing is trained yet.
        StorageError: the disk is full or not writable; an earlier export is intact.
    """
    rounds = result_rounds(session.run)
    if rounds == 0:
        raise RunFolderError(
            f"{session.run.folder.path} has no trained round to export; train one with `d3po run {session.run.folder.path}`"
        )
    session.load_round_weights(rounds)
    if session.trainer.average is not None:
        session.policy.load_state(session.trainer.average)
    with _staged(directory) as staging:
        written = [directory / path.relative_to(staging) for path in session.policy.export(staging)]
    return [*written, write_card(session.run, directory, rounds, written)]


@contextmanager
def _staged(directory: Path) -> Generator[Path, None, None]:
    """Give a temporary folder whose content replaces that of the same name in `directory` when the block ends without an error."""
    staging = directory / ".writing"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        with storage_errors(f"cannot write {directory}"):
            yield staging
            for made in staging.iterdir():
                before = directory / made.name
                if before.is_dir():
                    shutil.rmtree(before)
                made.replace(before)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
