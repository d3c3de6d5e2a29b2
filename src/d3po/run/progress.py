"""What a user sees while a run works."""

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Bar:
    """A progress bar that can carry a remark."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, count: int = 1, remark: str | None = None) -> None:
        """Move on, and say something about it."""
        if remark is None:
            self._progress.update(self._task, advance=count)
        else:
            self._progress.update(self._task, advance=count, remark=remark)


class Narrator:
    """Prints what happens: a bar with time left for long work, a line for each result."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int | None) -> Generator[Bar, None, None]:
        """A bar for `total` pieces of work, or an unknown number (None); on a terminal it moves, elsewhere its last state is printed."""
        columns = (
            TextColumn("{task.description:<21}"),
            BarColumn(10),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[remark]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            yield Bar(progress, progress.add_task(title, total=total, remark=""))
