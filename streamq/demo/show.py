"""What the demo prints: live bars on a terminal, plain lines elsewhere, and tables at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from streamq.demo.reconcile import Check
from streamq.job import JobSnapshot, JobState
from streamq.processors.generated import GeneratedFile
from streamq.processors.imports_request import ImportResult
from streamq.queue import QueueStats

_LOOK = {
    JobState.COMPLETED: "[green]completed[/]",
    JobState.FAILED: "[red]dead[/]",
    JobState.DELAYED: "[yellow]retrying[/]",
}

_TELL_EACH = 10
"""Percent that lie between two lines of one title, where there is no terminal."""


class Show:
    """Writes to one console."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)

    def chapter(self, text: str) -> None:
        """Begin a part of the story."""
        self.console.print(f"\n[bold]{escape(text)}[/]", soft_wrap=True)

    def step(self, text: str) -> None:
        """Say what has happened."""
        self.console.print(f"[bold cyan]>[/] {escape(text)}", soft_wrap=True)

    def alarm(self, text: str) -> None:
        """Say what has gone wrong, on purpose."""
        self.console.print(f"[bold red]![/] {escape(text)}", soft_wrap=True)

    def bars(self, titles: Sequence[str]) -> Bars:
        """Return the progress display of what has these titles."""
        return Bars(self.console, titles)

    def checks(self, checks: Sequence[Check]) -> None:
        """Show what the reconciliation found."""
        for check in checks:
            mark = "[bold red]✗[/]" if check.wrong else "[bold green]✓[/]"
            self.console.print(f"  {mark} {check.title:<38} {escape(check.wrong or check.found)}", soft_wrap=True)

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
    """One bar per title, for a job or for several. On what is no terminal: a line for each step worth telling."""

    def __init__(self, console: Console, titles: Sequence[str]) -> None:
        self._console, self._titles = console, titles
        self._live = console.is_terminal
        self._said: dict[str, tuple[str, int]] = {}
        self._bars = Progress(  # narrow enough for 80 columns
            TextColumn("{task.description:<36}"), BarColumn(bar_width=12), TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[state]}"), console=console,
        )  # fmt: skip
        self._ids: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        if self._live:
            self._bars.start()
            self._ids = {title: self._bars.add_task(title, total=100, state="waiting") for title in self._titles}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._bars.stop()

    def move(self, title: str, job: JobSnapshot) -> None:
        """Show a job as it is now."""
        state = _LOOK.get(job.state, str(job.state))
        if job.attempts_made and job.state is not JobState.COMPLETED:
            state += f" after {job.attempts_made} failed attempt{'s' if job.attempts_made > 1 else ''}"
        if job.stalls:
            state += ", taken over"
        percent = 100 if job.state is JobState.COMPLETED else _percent(job.progress)
        self._show(title, percent, state, job.state.ended)

    def move_group(self, title: str, ended: int, of: int) -> None:
        """Show that `ended` of several jobs have ended."""
        done = ended == of
        state = f"{ended} of {of}" if not done else f"[green]{of} completed[/]"
        self._show(title, 100 * ended // of, state, done)

    def _show(self, title: str, percent: int, state: str, ended: bool) -> None:
        if self._live:
            self._bars.update(self._ids[title], completed=percent, state=state)
            if ended:
                self._bars.stop_task(self._ids[title])
            return
        before, told = self._said.get(title, (str(JobState.WAITING), 0))
        if percent - told < _TELL_EACH and (" of " in state or state == before):
            return
        self._said[title] = (state, percent)
        self._console.print(f"  {title:<36} {percent:>3}%  {state}", soft_wrap=True)


def _percent(progress: Any) -> int:
    value = progress.get("percent", 0) if isinstance(progress, dict) else progress
    return int(value) if isinstance(value, int | float) else 0
