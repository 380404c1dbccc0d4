"""Run a page's blocks in order, as a reader would: `python -m tests.docs.run_page docs/cli.md`, in an empty folder.

Blocks of Python share their names and, where they `await`, an event loop. Blocks of shell share their environment, and
what they start serves until the page ends. A block with a title is written to that file. Exits 1 with the place of the
block that failed.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import time
import traceback
import types
from pathlib import Path

from tests.docs import commands
from tests.docs.pages import ROOT, Block, blocks

NAMES = ("python", "python3", "streamq", "pip", "pip3", "make", "docker", "docker-compose", "kubectl", "systemctl",
         "redis-server", "install", "apt", "apt-get", "sudo", "brew", "promtool")  # fmt: skip


class Failed(Exception):
    """A block did not do what the page says."""


class Run:
    """One run of a page."""

    def __init__(self) -> None:
        self.folder = Path.cwd()
        self._kept = self.folder / ".docs"
        self._kept.mkdir()
        os.environ[commands.FOLDER] = str(self._kept)
        os.environ[commands.SERVER] = os.environ["REDIS_URL"]
        os.environ["STREAMQ_DOCS_PATH"] = os.environ["PATH"]
        self._make_commands()
        (self.folder / "deploy").symlink_to(ROOT / "deploy")  # what a reader has who has the repository
        sys.path.insert(0, str(self.folder))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(self.folder), str(ROOT)])
        self._names = types.ModuleType("__main__")
        sys.modules["__main__"] = self._names
        self._runner = asyncio.Runner()
        self._printed = ""

    def _make_commands(self) -> None:
        bin = self._kept / "bin"
        bin.mkdir()
        text = f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        text += "from tests.docs.commands import main\nsys.exit(main())\n"
        for name in NAMES:
            (bin / name).write_text(text)
            (bin / name).chmod(0o755)
        os.environ["PATH"] = f"{bin}{os.pathsep}/usr/bin{os.pathsep}/bin"

    def block(self, block: Block) -> None:
        """Run one block, or compare what the last one printed."""
        if block.is_output:
            if block.code.strip() != self._printed.strip():
                raise Failed(f"prints\n{self._printed}\nand not\n{block.code}")
        elif block.title:
            path = self.folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code)
        elif block.language == "python":
            self._python(block)
        elif block.language == "sh":
            self._shell(block)

    def _python(self, block: Block) -> None:
        code = "\n" * (block.line - 1) + block.code
        compiled = compile(code, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if compiled.co_flags & 0x80:  # CO_COROUTINE
                self._runner.run(eval(compiled, self._names.__dict__))  # noqa: S307 - our own page
            else:
                exec(compiled, self._names.__dict__)  # noqa: S102 - our own page
        self._printed = printed.getvalue()

    def _shell(self, block: Block) -> None:
        kept = self._kept / "environment"
        before = f". {kept}\n" if kept.exists() else ""
        # `activate` is of a virtual environment that was only looked at.
        code = block.code.replace(". .venv/bin/activate", "true")
        script = f"set -e\n{before}{code}\nexport -p > {kept}\n"
        done = subprocess.run(
            ["/bin/bash", "-c", script], capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            raise Failed(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        self._printed = done.stdout

    def end(self) -> None:
        """End what the page has started."""
        self._runner.close()
        for path in sorted(self._kept.glob("*.pid")):
            pid = int(path.read_text())
            os.kill(pid, signal.SIGTERM)
            until = time.monotonic() + 20
            while _runs(pid):
                if time.monotonic() > until:
                    os.kill(pid, signal.SIGKILL)
                    raise Failed(f"did not stop: {path.with_suffix('.log').read_text()[-2000:]}")
                time.sleep(0.02)
        looked = self._kept / "looked-at"
        for line in looked.read_text().splitlines() if looked.exists() else []:
            print(f"looked at, not run: {line}")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def main(page: str) -> int:
    """Run the page and return the exit code."""
    run = Run()
    try:
        for block in blocks(page):
            if block.reason:
                continue
            try:
                run.block(block)
            except BaseException as error:
                if not isinstance(error, Failed):
                    traceback.print_exc()
                print(f"{block.place}: {error}", file=sys.stderr)
                return 1
    finally:
        run.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
