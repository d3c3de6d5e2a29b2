"""TensorBoard event files, written in the calling thread.

TensorBoard's own writer passes each event to a background thread. If the caller is interrupted at a bad moment, the thread's lock or queue stays held and
closing waits for ever. An error such as a full disk is also reported late. Training writes a few hundred bytes an update and needs no thread.
"""

import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue] - made when it is imported
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.record_writer import RecordWriter

from d3po.artifacts.files import GrowingFile

_NUMBERS = itertools.count()


class EventFile:
    """A new event file of scalars.

    Args:
        directory: the folder that TensorBoard reads; made if it does not exist.
        purge_step: TensorBoard ignores values of earlier files from this step on; with None it ignores none.

    Raises:
        StorageError: the disk is full or not writable.
    """

    def __init__(self, directory: Path, *, purge_step: int | None) -> None:
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        self._file = GrowingFile(directory / name)
        self._record(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_step is not None:
            self._record(Event(wall_time=time.time(), step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, scalars: Mapping[str, float], *, step: int) -> None:
        """Add the values of one step.

        Raises:
            StorageError: the disk is full or not writable.
        """
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._record(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _record(self, event: Event) -> None:
        RecordWriter(_Adding(self._file)).write(event.SerializeToString())


class _Adding:
    """Adapts `GrowingFile` to the file interface of TensorBoard's record writer; each record is written at once."""

    def __init__(self, file: GrowingFile) -> None:
        self.write = file.append
