"""Several observers as one: each is told, and one that fails keeps nothing from the others."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import pytest

from streamq.observer import NOBODY, Observer, Running, Sending, begin, together
from streamq.processor import ActiveJob

TOLD: dict[str, tuple[Any, ...]] = {
    "transition": ("q", "tick", 0.1, None),
    "ticked": ("q", 1, 2),
    "ended": ("q", "send", "done", 0.1, 0.2, 1),
    "stale": ("q",),
    "taken_back": ("q", 3),
    "poisoned": ("q", 1),
    "thread_left": ("q", "send"),
    "scripts_reloaded": ("q",),
}
JOB: ActiveJob[Any] = ActiveJob(None, "17", "send", "q", None, attempt=1, attempts=1, stalls=0)  # type: ignore[arg-type]


class Recorder(Observer):
    """Notes what it is told, its name with it."""

    def __init__(self, name: str = "a") -> None:
        self.name, self.told = name, dict[str, tuple[Any, ...]]()
        for method in TOLD:
            setattr(self, method, lambda *args, method=method: self.told.update({method: args}))

    def sending(self, queue: str, name: str, jobs: int) -> Sending:
        recorder = self

        class Noted(Sending):
            headers = MappingProxyType({self.name: "1"})

            def sent(self, ids: Sequence[str]) -> None:
                recorder.told["sent"] = tuple(ids)

            def failed(self, error: BaseException) -> None:
                recorder.told["failed"] = (error,)

        return Noted()

    def running(self, job: ActiveJob[Any], processor: str) -> Running:
        recorder = self

        class Noted(Running):
            def ended(self, outcome: str, error: str) -> None:
                recorder.told["ended here"] = (outcome, error)

        return Noted()

    def running_batch(self, jobs: Sequence[ActiveJob[Any]], processor: str) -> Running:
        recorder = self

        class Noted(Running):
            def ended(self, outcome: str, error: str) -> None:
                recorder.told["batch ended"] = (len(jobs), processor, outcome, error)

        return Noted()


class Broken(Observer):
    """Raises whatever it is told."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)

        def fail(*_: object) -> None:
            raise ValueError(name)

        return fail


def test_every_method_reaches_all_of_them_although_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    first, last = Recorder(), Recorder()
    all_of_them = together(first, Broken(), NOBODY, last)
    for method, args in TOLD.items():
        getattr(all_of_them, method)(*args)
    assert first.told == last.told == TOLD
    methods = {name for name, _ in inspect.getmembers(Observer, inspect.isfunction)}
    assert methods == {*TOLD, "sending", "running", "running_batch"}, "a new method has its place here, too"
    assert len(caplog.records) == len(TOLD)


def test_what_each_wants_carried_goes_together_and_each_hears_the_end() -> None:
    first, last = Recorder("a"), Recorder("b")
    all_of_them = together(first, Broken(), last)
    sending, running = all_of_them.sending("q", "send", 1), all_of_them.running(JOB, "send")
    assert sending is not None
    assert running is not None
    assert sending.headers == {"a": "1", "b": "1"}
    error = ValueError()
    sending.sent(["1", "2"])
    sending.failed(error)
    running.ended("fail", "ValueError")
    batch = all_of_them.running_batch([JOB, JOB], "send")
    assert batch is not None
    batch.ended("raised", "OSError")
    expected = {
        "sent": ("1", "2"), "failed": (error,), "ended here": ("fail", "ValueError"),
        "batch ended": (2, "send", "raised", "OSError"),
    }  # fmt: skip
    assert first.told == last.told == expected


def test_observers_that_carry_nothing_cost_no_headers() -> None:
    both = together(Observer(), Observer())
    assert both.sending("q", "send", 1) is None
    assert both.running(JOB, "send") is None
    assert both.running_batch([JOB], "send") is None
    assert begin(NOBODY, NOBODY.sending, "q", "send", 1) is None


def test_one_alone_is_itself_and_none_is_nobody() -> None:
    one = Recorder()
    assert together(NOBODY, one) is one
    assert together(NOBODY) is NOBODY
