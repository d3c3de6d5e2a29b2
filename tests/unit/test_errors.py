"""The error tree is the one drawn in the module's docstring."""

import errno
import inspect
import os
import re

import pytest

from d3po import errors
from d3po.cli import main
from d3po.errors import D3POError, RunEndedError, StorageError, UserError


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


@pytest.mark.parametrize("number", errors.REMEDIES, ids=errno.errorcode.get)
def test_what_the_machine_refuses_is_one_line_with_a_remedy(number: int) -> None:
    refused = StorageError.of(OSError(number, "whatever", "/a/file"))
    assert str(refused) == f"/a/file: {os.strerror(number)}; {errors.REMEDIES[number]}"
    assert (
        str(StorageError.of(OSError(number, "whatever"), "cannot write x"))
        == f"cannot write x: {os.strerror(number)}; {errors.REMEDIES[number]}"
    )


def test_a_library_that_tells_the_number_in_words_is_understood() -> None:
    said = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    assert str(StorageError.of(said)) == f"No space left on device; {errors.REMEDIES[errno.ENOSPC]}"


@pytest.mark.parametrize(
    "error",
    [OSError("no number"), OSError(errno.EBADF, "a mistake"), OSError(errno.ENOENT, "nowhere, but where?"), ValueError("28")],
    ids=repr,
)
def test_a_mistake_is_not_blamed_on_the_machine(error: Exception) -> None:
    assert StorageError.of(error) is None


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: No space left on device; free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/file"), 2, "error: /a/file: Permission denied; free some space or fix"),
        (MemoryError(), 2, "error: memory is full; docs/memory.md"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory\nmore"), 2, "error: memory is full ([enf"),
        (RuntimeError("a mistake"), 1, "error: RuntimeError: a mistake (--debug shows where)"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), 1, "error: ConnectionRefusedError: [Errno 111] refused (--debug shows where)"),
        (errors.RunEndedError("ended"), 0, "error: ended"),
    ],
    ids=repr,
)  # fmt: skip
def test_whatever_a_command_ends_in_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int, said: str
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise error

    monkeypatch.setattr("d3po.cli.app.app", fail)
    monkeypatch.setattr("sys.argv", ["d3po", "run", "x"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
