"""What the demo prints: live bars on a terminal, plain lines elsewhere, and tables at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from streamq.job import JobSnapshot, JobState
from streamq.processors.generated import GeneratedFile
from streamq.processors.imports_request import ImportResult
from streamq.queue import QueueStats

_LOOK = {
    JobState.COMPLETED: "[green]completed[/]",
    JobState.FAILED: "[red]dead[/]",
    JobState.DELAYED: "[yellow]retrying[/]",
}


class Show:
    """Writes to one console."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)

    def step(self, text: str) -> None:
        """Say what has happened."""
        self.console.print(f"[bold cyan]>[/] {escape(text)}", soft_wrap=True)

    def bars(self, titles: Mapping[str, str]) -> Bars:
        """Return the progress display of jobs, by key."""
        return Bars(self.console, titles)

    def import_result(self, result: ImportResult) -> None:
        """Show an import's statistics and its first errors."""
        table = Table(title=f"Import of {result.source}", title_justify="left")
        for heading in ("rows read", "imported", "skipped", "failed", "seconds"):
            table.add_column(heading, justify="right")
        numbers = (result.total, result.imported, result.skipped, result.failed)
        table.add_row(*(f"{number:,}" for number in numbers), f"{result.seconds:.2f}")
        self.console.print(table)
        for error in result.errors[:4]:
            self.console.print(f"  row {error.row}: {escape(error.field)} {escape(error.reason)}", soft_wrap=True)
        if result.error_count > 4:
            self.console.print(f"  ... and {result.error_count - 4} more")

    def statistics(self, stats: Mapping[str, QueueStats]) -> None:
        """Show the counts of each queue."""
        states = ("waiting", "active", "delayed", "completed", "failed", "total")
        table = Table(title="Queue statistics", title_justify="left")
        table.add_column("queue")
        for heading in states:
            table.add_column(heading, justify="right")
        for name, counts in stats.items():
            table.add_row(name, *(str(getattr(counts, state)) for state in states))
        self.console.print(table)

    def files(self, files: Sequence[GeneratedFile]) -> None:
        """Show where the files lie."""
        self.console.print("[bold]Files[/]")
        for file in files:
            self.console.print(f"  {escape(file.location)}  ({file.rows:,} rows, {file.size:,} bytes)", soft_wrap=True)


class Bars:
    """One bar per job, moved by snapshots of it."""

    def __init__(self, console: Console, titles: Mapping[str, str]) -> None:
        self._console, self._titles = console, titles
        self._live = console.is_terminal
        self._said: dict[str, str] = {}
        self._bars = Progress(
            TextColumn("{task.description:<34}"), BarColumn(bar_width=28), TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(), TextColumn("{task.fields[state]}"), console=console,
        )  # fmt: skip
        self._ids: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        if self._live:
            self._bars.start()
            self._ids = {k: self._bars.add_task(v, total=100, state="waiting") for k, v in self._titles.items()}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._bars.stop()

    def move(self, key: str, job: JobSnapshot) -> None:
        """Show the job as it is now."""
        state = _LOOK.get(job.state, str(job.state))
        if job.attempts_made and job.state is not JobState.COMPLETED:
            state += f" after {job.attempts_made} failed attempt{'s' if job.attempts_made > 1 else ''}"
        percent = 100 if job.state is JobState.COMPLETED else _percent(job.progress)
        if self._live:
            self._bars.update(self._ids[key], completed=percent, state=state)
            if job.state.ended:
                self._bars.stop_task(self._ids[key])
            return
        line = f"  {self._titles[key]:<34} {percent:>3}%  {state}"
        if self._said.get(key) != line:
            self._said[key] = line
            self._console.print(line, soft_wrap=True)


def _percent(progress: Any) -> int:
    value = progress.get("percent", 0) if isinstance(progress, dict) else progress
    return int(value) if isinstance(value, int | float) else 0
