"""The registry of processors, and what a running handler sees."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from streamq import ActiveJob, Backoff, InvalidInput, Processors
from streamq.processor import Processor, as_processors


async def handle(job: ActiveJob[Any]) -> str:
    return job.id


def handle_plainly(job: ActiveJob[Any]) -> str:
    return job.id


class Report(msgspec.Struct):
    month: int


def test_a_registered_processor_is_found_by_its_jobs_name() -> None:
    processors = Processors()
    assert (
        processors.register("report", data=Report, attempts=5, backoff=Backoff.fixed(1), timeout=60)(handle) is handle
    )
    found = processors.find("any", "report")
    assert found is not None
    assert (found.handler, found.data, found.attempts, found.timeout) == (handle, Report, 5, 60.0)
    assert processors.find("any", "other") is None


def test_the_most_particular_processor_is_found_first() -> None:
    processors = Processors()
    for queue, name in (("reports", "a"), (None, "a"), ("reports", "*"), (None, "*")):
        processors.add(Processor(name=name, queue=queue, handler=handle))
    order = [("reports", "a"), ("emails", "a"), ("reports", "b"), ("emails", "b")]
    found = [processors.find(queue, name) for queue, name in order]
    assert [(p.queue, p.name) for p in found if p] == [("reports", "a"), (None, "a"), ("reports", "*"), (None, "*")]


def test_a_name_is_taken_once_per_queue() -> None:
    processors = Processors()
    processors.register("report", queue="a")(handle)
    processors.register("report", queue="b")(handle)
    processors.register("report")(handle)
    with pytest.raises(InvalidInput, match="a processor for 'report' is registered already"):
        processors.register("report", queue="a")(handle)
    assert len(processors) == 3


def test_registries_are_laid_together_and_say_which_queues_they_serve() -> None:
    one, two = Processors(), Processors()
    one.register("a", queue="emails")(handle)
    two.register("b", queue="reports")(handle)
    two.register("c")(handle)
    one.update(two)
    assert one.queues() == ["emails", "reports"]
    assert repr(one) == "<Processors a, b, c>"
    with pytest.raises(InvalidInput, match="'b' is registered already"):
        one.update(two)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": ""}, "processor name must not be empty"),
        ({"name": "a{b}"}, "processor name must not contain braces"),
        ({"name": "a", "queue": "q\n"}, "queue name must not contain control characters"),
        ({"name": "a", "attempts": 0}, "attempts must be between 1 and 1,000, not 0"),
        ({"name": "a", "timeout": 0}, "timeout must be between 0.001"),
    ],
)
def test_a_registration_that_makes_no_sense_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        Processors().register(**options)


def test_a_function_runs_on_the_loop_or_in_a_thread() -> None:
    processors = as_processors({"async": handle, "plain": handle_plainly})
    assert {p.name: p.is_async for p in processors} == {"async": True, "plain": False}


def test_a_class_is_made_once_and_its_process_method_is_the_handler() -> None:
    made = []

    class Reporter:
        def __init__(self) -> None:
            made.append(self)

        async def process(self, job: ActiveJob[Any]) -> str:
            return job.id

    processors = Processors()
    assert processors.register("report")(Reporter) is Reporter
    (found,) = processors
    assert found.is_async
    assert found.handler == made[0].process
    assert len(made) == 1


def test_a_class_without_a_process_method_is_refused() -> None:
    class Empty:
        pass

    with pytest.raises(InvalidInput, match=r"Empty needs a method process\(self, job\)"):
        Processors().register("report")(Empty)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(InvalidInput, match="a processor must be a function or a class, not 5"):
        as_processors({"report": 5})  # type: ignore[dict-item]


def test_a_worker_takes_a_registry_a_mapping_or_one_function() -> None:
    registry = Processors()
    assert as_processors(registry) is registry
    assert [p.name for p in as_processors({"a": handle, "b": handle})] == ["a", "b"]
    (only,) = as_processors(handle)
    assert (only.name, only.handler) == ("*", handle)


def test_a_running_job_knows_which_attempt_it_is() -> None:
    job: ActiveJob[int] = ActiveJob(
        None, "17", "report", "reports", 5, attempt=2, attempts=3, stalls=1, processor="report"
    )  # type: ignore[arg-type]
    assert (job.attempt, job.attempts, job.attempts_made, job.stalls, job.data) == (2, 3, 1, 1, 5)
    assert job.logger.name == "streamq.job.report"
    assert repr(job) == "<ActiveJob reports/17 report attempt 2>"


def test_names_that_producers_make_up_make_no_loggers() -> None:
    names = {
        ActiveJob(None, "17", f"made-up-{n}", "reports", 5, attempt=1, attempts=1, stalls=0, processor="*").logger.name  # type: ignore[arg-type]
        for n in range(100)
    }
    assert names == {"streamq.job"}
    assert not [name for name in logging.root.manager.loggerDict if "made-up" in name]


def test_an_object_whose_call_is_async_runs_on_the_loop() -> None:
    class Greets:
        async def __call__(self, job: ActiveJob[Any]) -> str:
            return "hello"

    (processor,) = as_processors(Greets())
    assert processor.place == "loop"
