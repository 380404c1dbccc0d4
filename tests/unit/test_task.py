"""Tasks without Redis: what they check, what their jobs hold, which function they are."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from streamq import InvalidInput, Job, JobOptions, Processors, Task
from streamq._engine import codec


class Books:
    """Stands where a queue does, and keeps what it is given."""

    name = "emails"

    def __init__(self) -> None:
        self.added: list[tuple[str, Any, JobOptions | None]] = []

    async def add(self, name: str, data: Any = None, *, options: JobOptions | None = None) -> Job:
        codec.encode_data("data", data, 1_000)
        self.added.append((name, data, options))
        return Job(self, "17", name)

    async def get_job(self, job_id: str) -> None: ...

    async def result(self, job_id: str, timeout: Any = None) -> Any:
        return ["2026-01-31T00:00:00Z", "1.50"]


processors = Processors()


@processors.task("send-welcome", queue="emails", attempts=5)
async def send_welcome(user_id: int, amount: Decimal = Decimal(1), *, language: str = "en") -> tuple[datetime, Decimal]:
    """Welcome somebody."""
    return datetime(2026, 1, user_id, tzinfo=UTC), amount


@processors.task("count-words")
def count_words(text: str, least: int = 1) -> int:
    return len([word for word in text.split() if len(word) >= least])


def test_calling_a_task_calls_the_function_here_and_now() -> None:
    assert count_words("one two") == 2
    assert asyncio.run(send_welcome(3)) == (datetime(2026, 1, 3, tzinfo=UTC), Decimal(1))
    assert (send_welcome.__name__, send_welcome.__doc__) == ("send_welcome", "Welcome somebody.")


def test_a_task_is_registered_as_the_processor_of_its_name() -> None:
    found = processors.find("emails", "send-welcome")
    assert found is not None
    assert (found.queue, found.attempts, found.place, found.data) == ("emails", 5, "loop", send_welcome.data)
    plain = processors.find("any", "count-words")
    assert plain is not None
    assert (plain.queue, plain.place) == (None, "thread")


async def test_a_job_holds_the_parameters_that_were_given_and_no_defaults() -> None:
    books = Books()
    await send_welcome.on(books).add(1, language="de")
    [(name, data, options)] = books.added
    assert (name, msgspec.to_builtins(data), options) == ("send-welcome", {"user_id": 1, "language": "de"}, None)


async def test_what_was_left_out_is_the_default_of_the_function_that_runs() -> None:
    data = msgspec.convert({"text": "a bb ccc"}, count_words.data)
    assert count_words.handle(data) == 3
    assert count_words.handle(msgspec.convert({"text": "a bb ccc", "least": 2}, count_words.data)) == 2


async def test_a_result_has_the_type_that_the_function_is_annotated_with() -> None:
    job = await send_welcome.on(Books()).add(31)
    assert await job.result() == (datetime(2026, 1, 31, tzinfo=UTC), Decimal("1.50"))


async def test_options_go_with_the_jobs_of_the_task_that_has_them() -> None:
    books, options = Books(), JobOptions(delay=60)
    later = send_welcome.using(options).on(books)
    await later.add(1)
    await send_welcome.on(books).add(1)
    assert [given for _, _, given in books.added] == [options, None]
    assert later.spec(2) == ("send-welcome", send_welcome.data(user_id=2), options)
    assert count_words.spec("one") == ("count-words", count_words.data(text="one"), JobOptions())


@pytest.mark.parametrize(
    ("arguments", "named", "text"),
    [
        ((), {}, "task 'send-welcome': missing a required argument: 'user_id'"),
        ((1, 2, 3), {}, "task 'send-welcome': too many positional arguments"),
        ((1,), {"lang": "de"}, "task 'send-welcome': got an unexpected keyword argument 'lang'"),
        (("1",), {}, r"data can't be encoded: Expected `int`, got `str` - at `\$\.user_id`"),
        ((1,), {"language": 5}, r"data can't be encoded: Expected `str`, got `int` - at `\$\.language`"),
    ],
)
async def test_parameters_that_do_not_fit_are_refused_before_anything_is_sent(
    arguments: tuple[Any, ...], named: dict[str, Any], text: str
) -> None:
    books = Books()
    with pytest.raises(InvalidInput, match=text):
        await send_welcome.on(books).add(*arguments, **named)
    assert books.added == []


async def test_a_task_of_any_queue_asks_for_one() -> None:
    with pytest.raises(
        InvalidInput, match=r"task 'count-words' has no queue: register it with queue=…, or say task\.on"
    ):
        await count_words.add("one")


def test_a_task_of_one_queue_refuses_another() -> None:
    other = Books()
    other.name = "reports"
    with pytest.raises(InvalidInput, match="task 'send-welcome' is registered for queue 'emails', not 'reports'"):
        send_welcome.on(other)


def test_options_must_be_options() -> None:
    with pytest.raises(InvalidInput, match="options must be JobOptions, not dict"):
        send_welcome.using({"delay": 5})  # type: ignore[arg-type]


def takes_any_number(*numbers: int) -> None: ...
def takes_by_place(number: int, /) -> None: ...
def takes_a_list_or_a_set(numbers: list[int] | set[int]) -> None: ...
def takes_what_is_unknown(number: Unknown) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (takes_any_number, r"task 't': \*numbers: .* can't be given by name, as a job's data are"),
        (takes_by_place, "task 't': number: .* can't be given by name, as a job's data are"),
        (takes_a_list_or_a_set, "task 't': its parameters can't be a job's data: Type unions may not contain more"),
        (takes_what_is_unknown, "task 't': an annotation can't be resolved where it is registered: name 'Unknown'"),
        (Books, "task 't' must be a function, not <class"),
    ],
)
def test_a_function_that_can_not_be_a_task_is_refused_when_it_is_registered(function: Any, text: str) -> None:
    registry = Processors()
    with pytest.raises(InvalidInput, match=text):
        registry.task("t")(function)
    assert len(registry) == 0


def test_a_task_says_what_it_is() -> None:
    assert (repr(send_welcome), repr(count_words)) == (
        "<Task send-welcome of emails>",
        "<Task count-words of any queue>",
    )
    assert isinstance(send_welcome, Task)
