"""The error tree is the one drawn in the module's docstring."""

import inspect
import re

import pytest

from d3po import errors
from d3po.errors import D3POError, RunEndedError, UserError


def drawn_tree() -> dict[str, str | None]:
    """Each class in the docstring's drawing with the class it hangs from."""
    parents: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^ {4}([| `-]*)(\w+Error)\b", line):
            depth, name = len(match[1]), match[2]
            path = [(d, n) for d, n in path if d < depth]
            parents[name] = path[-1][1] if path else None
            path.append((depth, name))
    return parents


def defined_classes() -> dict[str, type[Exception]]:
    return {name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}


def test_drawing_shows_exactly_the_classes() -> None:
    tree = drawn_tree()
    assert tree.pop("D3POError") is None
    assert tree == {name: value.__bases__[0].__name__ for name, value in defined_classes().items() if value is not D3POError}


def test_public_names_are_pinned() -> None:
    assert errors.__all__ == [
        "ConfigError", "CorruptFileError", "D3POError", "DegenerateStepError", "FormatError", "ModelError", "NonFiniteError",
        "PromptError", "RewardError", "RunEndedError", "RunFolderError", "StorageError", "TrainingStoppedError", "UserError", "VoteConflictError", "VoteError",
    ]  # fmt: skip
    assert set(errors.__all__) == set(defined_classes())


@pytest.mark.parametrize("error", defined_classes().values(), ids=lambda error: error.__name__)
def test_exit_code_says_whether_the_user_can_mend_it(error: type[D3POError]) -> None:
    assert error("why").exit_code == (2 if issubclass(error, UserError) else 0 if error is RunEndedError else 1)


@pytest.mark.parametrize("error", defined_classes().values(), ids=lambda error: error.__name__)
def test_every_error_says_what_it_means(error: type[D3POError]) -> None:
    assert (error.__doc__ or "").strip().endswith(".")
