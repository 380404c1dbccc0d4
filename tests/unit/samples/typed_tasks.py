"""Right and wrong uses of tasks. A type checker must complain about the lines that say so, and about no other."""

from __future__ import annotations

from streamq import JobOptions, Processors, Queue

processors = Processors()


@processors.task("send-welcome", queue="emails")
async def send_welcome(user_id: int, *, language: str = "en") -> bool:
    return user_id > 0 and language == "en"


@processors.task("count-words")
def count_words(text: str) -> int:
    return len(text.split())


async def right(queue: Queue) -> None:
    job = await send_welcome.add(user_id=1)
    await send_welcome.add(1, language="de")
    sent: bool = await job.result(timeout=5)
    words: int = count_words("one two")
    counted: int = await (await count_words.on(queue).add("one two")).result()
    here: bool = await send_welcome(1)
    await send_welcome.using(JobOptions(delay=60)).add(2)
    await queue.add_many([send_welcome.spec(1), count_words.spec(text="one")])
    print(sent, words, counted, here)


async def wrong(queue: Queue) -> None:
    await send_welcome.add()  # error: a parameter is missing
    await send_welcome.add(user_id="1")  # error: of another type
    await send_welcome.add(1, "de")  # error: by name only
    await send_welcome.add(1, lang="de")  # error: no such parameter
    sent: str = await (await send_welcome.add(1)).result()  # error: the result is a bool
    count_words.on(queue).spec(3)  # error: of another type
    words: str = count_words("one two")  # error: called here and now it returns an int
    await send_welcome.using(JobOptions(delay=60)).add("2")  # error: of another type
    send_welcome.name = 5  # error: not text
    print(sent, words)
