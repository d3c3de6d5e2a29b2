"""Every error d3po raises on purpose.

    D3POError                        exit code 1
    |- UserError                     exit code 2: something the user can mend
    |  |- ConfigError                run.toml, a recipe or an option
    |  |- PromptError                a prompt file
    |  |- ModelError                 a model that cannot be found or used
    |  |- RewardError                a reward or judge that cannot be found, or that failed
    |  |- RunFolderError             a run folder that is missing, taken, or of another run
    |  |- CorruptFileError           a shard or checkpoint whose bytes are not those that were written
    |  |- FormatError                a file of votes that is not what its format asks for
    |  |- StorageError               the disk is full or not writable, or the database is locked or away
    |  `- VoteError                  a question or an answer that makes no sense
    |     `- VoteConflictError       a vote's id that was used for another vote
    |- DegenerateStepError           a reverse step without a density (std = 0)
    |- RunEndedError                 somebody ended the run from the dashboard
    `- TrainingStoppedError          a guard stopped training
       `- NonFiniteError             a loss or gradient that is not a number

A message names what, where, the value and the remedy. The command line prints it as one line; `--debug` shows the traceback.
"""

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
    """Whether another process of the same run tells the user."""


class UserError(D3POError):
    """Something the user can mend; the command exits with code 2."""

    exit_code = 2


class ConfigError(UserError):
    """A setting in run.toml, a recipe or an option that is unknown, missing or out of range."""


class PromptError(UserError):
    """A prompt file that cannot be read or holds no usable prompt."""


class ModelError(UserError):
    """A model that cannot be found, is not supported, or does not fit its adapter."""


class RewardError(UserError):
    """A reward or judge that is unknown, lacks something, failed or cannot be believed, or a value that is no finite number."""


class RunFolderError(UserError):
    """A run folder that is missing, in use by another process, or of another run."""


class CorruptFileError(UserError):
    """A file whose checksum differs from the one recorded when it was written."""


class FormatError(UserError):
    """A file of votes or pictures that is not what its format asks for; the message names file, line and field."""


class StorageError(UserError):
    """The disk is full or not writable, or the database is locked or away; what was saved before is whole."""


class VoteError(UserError):
    """A question without the pictures it needs, or an answer that does not fit its question."""


class VoteConflictError(VoteError):
    """A vote's id that was used for another vote."""


class DegenerateStepError(D3POError):
    """A reverse step with std = 0: it is deterministic and has no density."""


class RunEndedError(D3POError):
    """Somebody ended the run from the dashboard; the same command goes on from there."""

    exit_code = 0


class TrainingStoppedError(D3POError):
    """A guard stopped training; the last good checkpoint is kept."""


class NonFiniteError(TrainingStoppedError):
    """A loss or gradient is infinite or not a number."""
