"""Every error d3po raises on purpose.

    D3POError                        exit code 1
    |- UserError                     exit code 2: something the user can fix
    |  |- ConfigError                run.toml, a recipe or an option
    |  |- PromptError                a prompt file
    |  |- ModelError                 a model that cannot be found or used
    |  |- RewardError                a reward, or a model that judges, that cannot be found or that failed
    |  |- RunFolderError             a run folder that is missing, in use, or of another run
    |  |- CorruptFileError           a file that is missing, or whose bytes are not those that were written
    |  |- FormatError                a file of votes, or a picture, that does not follow its format
    |  |- StorageError               the disk is full or not writable, memory is full, or the database is locked or unreachable
    |  `- VoteError                  a question or an answer that makes no sense
    |     `- VoteConflictError       a vote's id that was already used for another vote
    |- DegenerateStepError           a reverse step without a density (std = 0)
    |- RunEndedError                 a person ended the run from the dashboard
    `- TrainingStoppedError          a guard stopped training
       `- NonFiniteError             a loss, a gradient or an output of the trained policy is not finite

A message names what, where, the value and the remedy. The command line prints it as one line; `--debug` shows the traceback.
"""

import errno
import os
import re
from collections.abc import Generator
from contextlib import contextmanager

__all__ = [
    "ConfigError",
    "CorruptFileError",
    "D3POError",
    "DegenerateStepError",
    "FormatError",
    "ModelError",
    "NonFiniteError",
    "PromptError",
    "RewardError",
    "RunEndedError",
    "RunFolderError",
    "StorageError",
    "TrainingStoppedError",
    "UserError",
    "VoteConflictError",
    "VoteError",
]


class D3POError(Exception):
    """Base of all errors d3po raises on purpose."""

    exit_code = 1
    said_elsewhere = False
    """Whether another process of the same run shows the error to the user."""


class UserError(D3POError):
    """Something the user can fix; the command exits with code 2."""

    exit_code = 2


class ConfigError(UserError):
    """A setting in run.toml, a recipe or an option that is unknown, missing or out of range."""


class PromptError(UserError):
    """A prompt file that cannot be read or holds no usable prompt."""


class ModelError(UserError):
    """A model that cannot be found, is not supported, or does not fit its adapter."""


class RewardError(UserError):
    """A reward, or a model that judges, that is unknown, lacks something, failed, is too inconsistent, or gave a value that is not finite."""


class RunFolderError(UserError):
    """A run folder that is missing, in use by another process, or of another run."""


class CorruptFileError(UserError):
    """A file that is missing, or whose checksum differs from the one recorded when it was written."""


class FormatError(UserError):
    """A file of votes or pictures that does not follow its format; the message names file, line and field."""


OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust, such as safetensors, end the message of an operating system error."""

WRONG_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP)
"""Errors that a user cannot understand without the path."""
REMEDIES = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
        "free some space or fix the permissions and run the same command again",
    ),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV), "check that the disk is intact and connected"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (`ulimit -n`) and run the same command again"),
    **dict.fromkeys(WRONG_PLACE, "check what is at that path"),
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: "use a file system that holds files of that size",
    errno.ENOMEM: "free some memory; docs/memory.md says how to need less",
}
"""What the user can do about each operating system error. Errors with other numbers are bugs, and are shown as such."""


OUT_OF_MEMORY = ("out of memory", "can't allocate memory")
"""Parts of torch's messages when memory runs out, on GPUs and on CPUs."""


class StorageError(UserError):
    """The disk is full or not writable, memory is full, or the database is locked or unreachable; what was saved before is intact."""

    @classmethod
    def of(cls, error: Exception, what: str = "") -> "StorageError | None":
        """Turn an error of the operating system into a StorageError with a message of one line; return None for any other error.

        Args:
            error: an OSError, a library's error that ends in `(os error 28)`, or an error that says that memory is full.
            what: what could not be done, such as `cannot write PATH`. Default: the file that the error names.
        """
        said = str(error).partition("\n")[0]
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(words in said for words in OUT_OF_MEMORY)):
            return cls(f"memory is full{f' ({said})' if said else ''}; docs/memory.md says how to need less")
        in_words = OS_ERROR.search(str(error))
        number = error.errno if isinstance(error, OSError) else int(in_words[1]) if in_words else None
        what = what or str(getattr(error, "filename", None) or "")
        if isinstance(error, D3POError) or number not in REMEDIES or (number in WRONG_PLACE and not what):
            return None
        return cls(f"{what}{': ' if what else ''}{os.strerror(number)}; {REMEDIES[number]}")


class VoteError(UserError):
    """A question without the pictures it needs, or an answer that does not fit its question."""


class VoteConflictError(VoteError):
    """A vote's id that was already used for another vote."""


class DegenerateStepError(D3POError):
    """A reverse step with std = 0: it is deterministic and has no density."""


class RunEndedError(D3POError):
    """A person ended the run from the dashboard; the same command continues from there."""

    exit_code = 0


class TrainingStoppedError(D3POError):
    """A guard stopped training; the last good checkpoint is kept."""


class NonFiniteError(TrainingStoppedError):
    """A loss, a gradient or an output of the trained policy is infinite or not a number."""


@contextmanager
def storage_errors(what: str) -> Generator[None, None, None]:
    """Turn errors of the operating system within the block into a StorageError.

    Args:
        what: what could not be done, for the message, such as `cannot write PATH`.

    Raises:
        StorageError: the operating system reported an error that the user can do something about.
    """
    try:
        yield
    except Exception as error:
        refused = StorageError.of(error, what)
        if refused is None:
            raise
        raise refused from error
