"""What a handler can say of one job of a batch."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any, cast

import pytest

from streamq import Batch, BatchJob, FlowJob, InvalidInput, Processors
from streamq.log import JobFilter, current_batch, inside_a_handler
from streamq.processor import Processor

LOOP = Batch(size=2)


def job(number: int = 7) -> BatchJob[Any]:
    return BatchJob(
        cast(Any, None), str(number), "index", "q", None, attempt=2, attempts=3, stalls=0, processor="index"
    )


async def handle(jobs: list[BatchJob[Any]]) -> None: ...


def handle_plainly(jobs: list[BatchJob[Any]]) -> None: ...


def test_a_job_is_settled_once() -> None:
    one = job()
    assert not one.settled
    one.complete("fine")
    assert one.settled
    for again in (one.complete, lambda: one.fail(ValueError())):
        with pytest.raises(InvalidInput, match="job 7 is settled already"):
            again()
    assert one._close() == (None, "fine")


def test_a_job_fails_with_an_exception_and_nothing_else() -> None:
    one = job()
    with pytest.raises(InvalidInput, match="fail takes an exception, not 'no'"):
        one.fail(cast(Any, "no"))
    error = ValueError("no")
    one.fail(error)
    assert one._close() == (error, None)


def test_a_job_that_nothing_was_said_of_ends_with_its_batch_and_takes_no_word_after_that() -> None:
    one = job()
    assert one._close() is None
    with pytest.raises(InvalidInput, match="job 7 has ended with its batch"):
        one.complete()


def test_a_job_of_a_batch_waits_for_no_children() -> None:
    with pytest.raises(InvalidInput, match="job 7 is one of a batch, which can't wait for children"):
        job().add_children([FlowJob("child")])


def test_the_jobs_own_logger_says_which_one_it_is_and_keeps_what_a_line_brings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        job().logger.info("indexed", extra={"shard": 3})
    (record,) = caplog.records
    found = vars(record)
    assert (record.name, found["queue"], found["job_id"], found["attempt"], found["shard"]) == (
        "streamq.job.index", "q", "7", 2, 3,
    )  # fmt: skip


def test_other_lines_name_the_jobs_of_the_batch_up_to_a_limit() -> None:
    token = current_batch.set([job(number) for number in range(25)])
    try:
        assert inside_a_handler()
        record = logging.makeLogRecord({"msg": "indexing"})
        assert JobFilter().filter(record)
        assert vars(record)["job_ids"] == f"{','.join(str(n) for n in range(20))} and 5 more"
        assert not hasattr(record, "job_id")
    finally:
        current_batch.reset(token)
    assert not inside_a_handler()


# Registration ---------------------------------------------------------------------------------------------------------


def test_a_processor_may_take_several_jobs_at_once_on_the_loop_or_in_a_thread() -> None:
    processors = Processors()
    processors.register("a", batch=Batch(size=50, max_wait=timedelta(milliseconds=200)))(handle)
    processors.register("b", batch=LOOP)(handle_plainly)
    found = {processor.name: (processor.batch, processor.place) for processor in processors}
    assert found == {"a": (Batch(50, 0.2), "loop"), "b": (Batch(2, 0.1), "thread")}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 0}, "batch size must be between 1 and 10,000, not 0"),
        ({"size": 10_001}, "batch size must be between 1 and 10,000, not 10001"),
        ({"size": 1.5}, r"batch size must be a whole number, not 1\.5"),
        ({"max_wait": -0.1}, r"batch max_wait must be between 0 and 3600 seconds, not -0\.1"),
        ({"max_wait": 4_000}, "batch max_wait must be between 0 and 3600 seconds, not 4000"),
        ({"max_wait": "soon"}, r"batch max_wait must be seconds \(a number or a timedelta\), not 'soon'"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{text}$"):
        Batch(**options)


@pytest.mark.parametrize(
    ("options", "handler", "text"),
    [
        ({"name": "a", "batch": 100}, handle, r"batch must be a Batch\(size, max_wait\), not 100"),
        ({"name": "*", "batch": LOOP}, handle, r"a batch holds jobs of one name: the processor of any name \(\*\)"),
        (
            {"name": "a", "batch": LOOP, "run_in": "process"}, handle_plainly,
            "'a': a batch runs in the loop or in a thread, not with run_in='process'",
        ),
        ({"name": "a", "batch": LOOP, "run_in": "loop"}, handle_plainly, "run_in='loop' does not fit handle_plainly"),
    ],
)  # fmt: skip
def test_a_processor_that_can_take_no_batches_is_refused(options: dict[str, Any], handler: Any, text: str) -> None:
    processors = Processors()
    with pytest.raises(InvalidInput, match=text):
        processors.register(**options)(handler)
    assert len(processors) == 0


def test_a_processor_that_is_made_by_hand_is_looked_at_too() -> None:
    with pytest.raises(InvalidInput, match="a batch holds jobs of one name"):
        Processors().add(Processor(name="*", handler=handle, batch=LOOP))


def test_a_task_takes_no_batch_since_its_parameters_are_one_jobs_data() -> None:
    with pytest.raises(TypeError, match="batch"):
        Processors().task("a", batch=LOOP)  # type: ignore[call-arg]
