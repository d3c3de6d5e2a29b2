"""Prints messages and progress bars while a run works."""

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Bar:
    """A progress bar with a remark beside it."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, count: int = 1, remark: str | None = None) -> None:
        """Advance by `count`, and replace the remark if one is given."""
        if remark is None:
            self._progress.update(self._task, advance=count)
        else:
            self._progress.update(self._task, advance=count, remark=remark)


class Narrator:
    """Prints a line for each result, and a progress bar with the time left for long work."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int | None) -> Generator[Bar, None, None]:
        """Show a progress bar for `total` pieces of work, or an unknown number (None). Outside a terminal only its final state is printed."""
        columns = (
            TextColumn("{task.description:<21}"),
            BarColumn(10),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[remark]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            yield Bar(progress, progress.add_task(title, total=total, remark=""))
