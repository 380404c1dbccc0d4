"""Lint the Redis scripts: `python tests/lint_lua.py lua`. Prints each fault on a line; exits 1 if there is one.

Each script is read as the server gets it, its includes in place. Checked: the header; that it parses as Lua 5.1;
globals that are assigned, or unknown to Redis; locals and local functions that nothing reads; arguments used by number
inside a function. A library (`lua/lib/`) holds local functions and constants only, each used by some script.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from antlr4.error.Errors import ParseCancellationException
from luaparser import ast
from luaparser import astnodes as lua

_KNOWN = """
redis cjson cmsgpack bit string table math KEYS ARGV assert error getmetatable ipairs next pairs pcall
rawequal rawget rawset select setmetatable tonumber tostring type unpack xpcall
"""
KNOWN = set(_KNOWN.split())
NOT_IN_LUA_5_1 = (lua.Goto, lua.Label, lua.FloorDivOp, lua.BitOp, lua.UBNotOp, lua.Attribute)
HEADER_WORDS = ("KEYS", "ARGV", "RETURNS", "RACES")
INCLUDE = re.compile(r"-- @include (lib/[a-z_]+)\s*")


class Origin(NamedTuple):
    """A line of a file; sorts as one would read."""

    path: Path
    line: int


@dataclass
class Local:
    """A local name: where it was made, and which files read it."""

    name: str
    origin: Origin
    checked: bool  # parameters and loop variables may go unread
    readers: set[Path] = field(default_factory=set)


@dataclass
class Script:
    """One script with its includes in place, and what is known of it."""

    path: Path
    origins: list[Origin] = field(default_factory=list)
    source: str = ""
    faults: set[tuple[Origin, str]] = field(default_factory=set)
    names: list[Local] = field(default_factory=list)


def lint(folder: Path) -> list[str]:
    """Return the faults of all scripts under `folder`, each as `path:line: what`, sorted."""
    scripts = [examine(path) for path in sorted(folder.glob("*.lua"))]
    faults = {fault for script in scripts for fault in script.faults}
    seen: dict[Origin, bool] = {}
    for script in scripts:
        for local in script.names:
            seen[local.origin] = seen.get(local.origin, False) or bool(local.readers)
            if local.origin.path == script.path and local.checked and not local.readers:
                faults.add((local.origin, f"{local.name} is never read"))
        faults.update(_useless_includes(script))
    libraries = {local.origin: local.name for script in scripts for local in script.names if local.checked}
    for origin, name in libraries.items():
        if origin.path.parent != folder and not seen[origin]:
            faults.add((origin, f"{name} is read by no script"))
    for path in sorted((folder / "lib").glob("*.lua")):
        if not any(origin.path == path for script in scripts for origin in script.origins):
            faults.add((Origin(path, 1), "no script includes it"))
    return [f"{origin.path}:{origin.line}: {what}" for origin, what in sorted(faults)]


def examine(path: Path) -> Script:
    """Parse one script and walk through it."""
    script = Script(path)
    lines = list(_lines(script))
    script.faults.update(_header_faults(path))
    script.source = "\n".join(lines)
    try:
        tree = ast.parse(script.source)
    except (ast.SyntaxException, ParseCancellationException) as error:
        line = _line_of(error)
        script.faults.add((script.origins[min(line, len(lines)) - 1], "does not parse: a syntax error here or before"))
        return script
    walk = _Walk(script)
    walk.block(tree.body, {})
    script.faults.update(_library_faults(script, tree.body.body))
    return script


def _line_of(error: BaseException) -> int:
    """Find the line in what the parser raised: in its text, or in the grammar runtime's error inside it."""
    said = re.search(r"line (\d+)", str(error))
    if said:
        return int(said[1])
    inner = error.__context__.args[0] if error.__context__ and error.__context__.args else None
    token = getattr(inner, "offendingToken", None)
    return token.line if token is not None else 1


def _lines(script: Script) -> Iterator[str]:
    yield from _lines_of(script, script.path, set())


def _lines_of(script: Script, path: Path, seen: set[Path]) -> Iterator[str]:
    """Yield a file's lines, with each library where it is first named, what that includes before it."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        included = INCLUDE.fullmatch(line)
        library = script.path.parent / f"{included[1]}.lua" if included else None
        if library is not None and library.is_file() and library not in seen:
            seen.add(library)
            yield from _lines_of(script, library, seen)
            continue
        if library is not None and not library.is_file():
            script.faults.add((Origin(path, number), f"{library} does not exist"))
        script.origins.append(Origin(path, number))
        yield "" if number == 1 and line.startswith("#!") else line


def _header_faults(path: Path) -> Iterator[tuple[Origin, str]]:
    lines = path.read_text().splitlines()
    if not lines or not re.fullmatch(r"#!lua( flags=[a-z,-]+)?", lines[0]):
        yield Origin(path, 1), "the first line must be #!lua"
    header = []
    for line in lines[1:]:
        if not line.startswith("--"):
            break
        header.append(line)
    if not header or not header[0].startswith(f"-- {path.stem}: "):
        yield Origin(path, 2), f"the header must start with '-- {path.stem}: '"
    for word in HEADER_WORDS:
        if not any(line.startswith(f"-- {word} ") for line in header):
            yield Origin(path, 2), f"the header does not say {word}"


def _library_faults(script: Script, statements: Iterable[lua.Node]) -> Iterator[tuple[Origin, str]]:
    for statement in statements:
        origin = script.origins[statement.line - 1]
        if origin.path != script.path and not isinstance(statement, (lua.LocalFunction, lua.LocalAssign)):
            yield origin, "a library may hold only local functions and constants"
        elif origin.path != script.path and any(isinstance(node, lua.Call) for node in _outer(statement)):
            yield origin, "a library must not call anything when it is loaded"


def _outer(statement: lua.Node) -> Iterator[lua.Node]:
    return iter(()) if isinstance(statement, lua.LocalFunction) else ast.walk(statement)


def _useless_includes(script: Script) -> Iterator[tuple[Origin, str]]:
    used: dict[Path, bool] = {}
    for local in script.names:
        if local.checked and local.origin.path != script.path:
            elsewhere = bool(local.readers - {local.origin.path})
            used[local.origin.path] = used.get(local.origin.path, False) or elsewhere
    for number, line in enumerate(script.path.read_text().splitlines(), 1):
        included = INCLUDE.fullmatch(line)
        if included and used.get(script.path.parent / f"{included[1]}.lua") is False:
            yield Origin(script.path, number), f"nothing of {included[1]} is used"


class _Walk:
    """Goes through a script as the server would see its names. A scope is a dict; an inner one starts as a copy."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.depth = 0
        self.at = script.origins[0]  # of the node last seen that says where it is: not every node does

    def fault(self, what: str) -> None:
        self.script.faults.add((self.at, what))

    def declare(self, scope: dict[str, Local], name: lua.Node, at: lua.Node, *, checked: bool) -> None:
        if isinstance(name, lua.Name):
            checked = checked and not name.id.startswith("_")
            scope[name.id] = Local(name.id, self.script.origins[at.line - 1], checked)
            self.script.names.append(scope[name.id])

    def block(self, block: lua.Block, outer: dict[str, Local]) -> dict[str, Local]:
        scope = dict(outer)
        for statement in block.body:
            self.visit(statement, scope)
        return scope

    def function(self, node: lua.Node, scope: dict[str, Local]) -> None:
        inner = dict(scope)
        for argument in node.args:
            self.declare(inner, argument, node, checked=False)
        self.depth += 1
        self.block(node.body, inner)
        self.depth -= 1

    def visit(self, node: object, scope: dict[str, Local]) -> None:
        if isinstance(node, list):
            for each in node:
                self.visit(each, scope)
        if not isinstance(node, lua.Node) or isinstance(node, lua.Comment):
            return
        if node.line is not None:
            self.at = self.script.origins[node.line - 1]
        if isinstance(node, NOT_IN_LUA_5_1):
            self.fault(f"{type(node).__name__} is not in Lua 5.1")
        special = getattr(self, f"visit_{type(node).__name__}", None)
        if special is not None:
            special(node, scope)
        elif isinstance(node, lua.Block):
            self.block(node, scope)
        else:
            for name, value in vars(node).items():
                if not name.startswith("_") and name != "comments":
                    self.visit(value, scope)

    def visit_Name(self, node: lua.Name, scope: dict[str, Local]) -> None:
        if node.id in scope:
            scope[node.id].readers.add(self.at.path)
        elif node.id not in KNOWN:
            self.fault(f"{node.id} is not known")

    def visit_Index(self, node: lua.Index, scope: dict[str, Local]) -> None:
        self.visit(node.value, scope)
        if node.notation is lua.IndexNotation.SQUARE:
            self.visit(node.idx, scope)
            named = isinstance(node.value, lua.Name) and node.value.id in ("ARGV", "KEYS")
            if named and self.depth and isinstance(node.idx, lua.Number):
                self.fault(f"{node.value.id}[{node.idx.n}] inside a function: name it at the top")

    def visit_Field(self, node: lua.Field, scope: dict[str, Local]) -> None:
        if node.between_brackets:
            self.visit(node.key, scope)
        self.visit(node.value, scope)

    def visit_Invoke(self, node: lua.Invoke, scope: dict[str, Local]) -> None:
        self.visit(node.source, scope)
        self.visit(node.args, scope)

    def visit_LocalAssign(self, node: lua.LocalAssign, scope: dict[str, Local]) -> None:
        self.visit(node.values, scope)
        for target in node.targets:
            self.declare(scope, target, node, checked=True)

    def visit_Assign(self, node: lua.Assign, scope: dict[str, Local]) -> None:
        self.visit(node.values, scope)
        for target in node.targets:
            if not isinstance(target, lua.Name):
                self.visit(target, scope)
            elif target.id not in scope:
                self.fault(f"{target.id} is a global, which Redis refuses")

    def visit_Function(self, node: lua.Function, scope: dict[str, Local]) -> None:
        if isinstance(node.name, lua.Name) and node.name.id not in scope:
            self.fault(f"{node.name.id} is a global, which Redis refuses")
        self.function(node, scope)

    def visit_LocalFunction(self, node: lua.LocalFunction, scope: dict[str, Local]) -> None:
        self.declare(scope, node.name, node, checked=True)
        self.function(node, scope)

    def visit_AnonymousFunction(self, node: lua.AnonymousFunction, scope: dict[str, Local]) -> None:
        self.function(node, scope)

    def visit_Fornum(self, node: lua.Fornum, scope: dict[str, Local]) -> None:
        self.visit([node.start, node.stop, node.step], scope)
        inner = dict(scope)
        self.declare(inner, node.target, node, checked=False)
        self.block(node.body, inner)

    def visit_Forin(self, node: lua.Forin, scope: dict[str, Local]) -> None:
        self.visit(node.iter, scope)
        inner = dict(scope)
        for target in node.targets:
            self.declare(inner, target, node, checked=False)
        self.block(node.body, inner)

    def visit_Repeat(self, node: lua.Repeat, scope: dict[str, Local]) -> None:
        self.visit(node.test, self.block(node.body, scope))


if __name__ == "__main__":
    found = lint(Path(sys.argv[1]))
    print("\n".join(found) or "the Lua scripts are clean")
    sys.exit(1 if found else 0)
