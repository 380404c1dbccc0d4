"""Every code block of README.md and of the pages under docs/ does what it says, against a real server.

Pages are found by themselves; CONTRIBUTING.md tells how to write one.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from luaparser import ast as lua

from tests.docs import commands
from tests.docs.pages import LANGUAGES, ROOT, Block, WrongPage, blocks, pages, parse


def understood(page: str) -> list[Block]:
    """Return a page's blocks; none of one that a test of its own finds wrong."""
    with contextlib.suppress(WrongPage):
        return blocks(page)
    return []


ALL = [block for page in pages() for block in understood(page)]
RUN = sorted({block.page for block in ALL if LANGUAGES[block.language] == "run" and not block.reason})


@pytest.mark.parametrize("page", pages())
def test_every_block_of_a_page_says_what_it_is(page: str) -> None:
    blocks(page)


@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run(page: str, redis_url: str, tmp_path: Path) -> None:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("REDIS_", "STREAMQ_", "QUEUE_", "JOB_"))}
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.run_page", page],
        cwd=tmp_path, env={**plain, "REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=110, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", [block for block in ALL if block.reason], ids=lambda block: block.place)
def test_a_block_that_is_not_run_says_why(block: Block) -> None:
    check(block)
    pytest.skip(block.reason)


@pytest.mark.parametrize(
    "block", [b for b in ALL if LANGUAGES[b.language] == "parsed" and not b.reason], ids=lambda block: block.place
)
def test_a_block_that_is_only_shown_can_be_parsed(block: Block) -> None:
    check(block)


def check(block: Block) -> None:
    """Parse a block."""
    match block.language:
        case "python":
            compile(block.code, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        case "sh":
            subprocess.run(["/bin/bash", "-n"], input=block.code, text=True, check=True)
        case "console":
            for line in block.code.splitlines():
                if line.startswith("$ ") and line.split()[1] == "streamq":
                    commands.check(shlex.split(line, comments=True)[2:])
        case "lua":
            lua.parse(block.code.removeprefix("#!lua\n"))
        case "toml":
            tomllib.loads(block.code)
        case "json":
            json.loads(block.code)
        case "yaml":
            list(yaml.safe_load_all(block.code))


# The test itself ------------------------------------------------------------------------------------------------------


def run_text(text: str, folder: Path, redis_url: str) -> subprocess.CompletedProcess[str]:
    """Run a page that lies beside the others for a moment."""
    page = folder / "page.md"
    page.write_text(text)
    (folder / "run").mkdir()
    env = {**os.environ, "REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "tests.docs.run_page", str(page)],
        cwd=folder / "run", env=env, capture_output=True, text=True, timeout=110,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```python\nx = 1\n```\n\n```python\nassert x == 2\n```", "page.md:6"),
        ("```sh\nstreamq stats --colour\n```", "unrecognized arguments: --colour"),
        ('```sh\npip install "streamq[nothing]"\n```', "no extra nothing"),
        ("```sh\nmake coffee\n```", "no coffee"),
        ("```sh\nstreamq worker --processors there_is_none\n```", "there_is_none"),
        ("```python\nprint(1)\n```\n\n<!-- output -->\n```text\n2\n```", "and not\n2"),
        ('```python title="jobs.py"\nx = 1\n```\n\n```python\nimport jobs\nawait jobs.x\n```', "page.md:6"),
    ],
)
def test_a_page_that_does_not_do_what_it_says_is_found(text: str, told: str, tmp_path: Path, redis_url: str) -> None:
    done = run_text(text, tmp_path, redis_url)
    assert done.returncode == 1
    assert told in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```\nwhat?\n```", "no language"),
        ("```rust\n```", "a block of rust"),
        ("<!-- not run: it is dear -->\n\nText.\n\n```sh\n```", "no block behind it"),
    ],
)
def test_a_block_whose_meaning_is_unclear_is_refused(text: str, told: str) -> None:
    with pytest.raises(WrongPage, match=told):
        parse("page.md", text)


def test_a_page_that_does_what_it_says_passes(tmp_path: Path, redis_url: str) -> None:
    done = run_text(GOOD, tmp_path, redis_url)
    assert done.returncode == 0, done.stderr
    assert "looked at, not run: make test" in done.stdout


GOOD = """
<!-- setup
from streamq import Queue
queue = Queue("emails")
-->

```python title="jobs.py"
from streamq import Processors

processors = Processors()


@processors.register("hello", queue="emails")
def hello(job):
    return f"hello {job.data}"
```

```sh
make test
export NAME=ann
streamq worker --processors jobs --queues emails
```

```sh
streamq add emails hello "\\"$NAME\\"" --wait
```

<!-- output -->
```text
"hello ann"
```

```python
print(await (await queue.add("hello", "bob")).result(timeout=20))
await queue.close()
```

<!-- output -->
```text
hello bob
```

<!-- not run: it is dear -->
```sh
false
```
"""
