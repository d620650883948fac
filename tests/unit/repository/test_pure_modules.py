"""A module whose docstring says that it is pure, is: no clock, no socket, no process, no file, no bus.

A pure module may name the types of a module that does I/O, since a snapshot is defined where it is taken. It may call
nothing of it. The rule holds for every module that calls itself pure, so also for the next one.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("shared", "services", "cli", "proofs")
OUTSIDE = frozenset(
    {
        *("time", "sched", "signal"),
        *("asyncio", "threading", "multiprocessing", "concurrent", "subprocess"),
        *("socket", "ssl", "select", "selectors", "http", "aiohttp", "httpx", "websockets", "fastapi", "uvicorn"),
        *("redis", "cryptofeed", "stamina", "aiolimiter", "apscheduler", "apprise"),
        *("tempfile", "shutil", "fcntl", "mmap", "secrets"),
    }
)
"""Clocks, other processes, the network, and places to write to: standard library and dependencies."""
CLOCKS = frozenset({("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")})
FILES = frozenset({"read_text", "write_text", "read_bytes", "write_bytes", "unlink", "mkdir", "rename"})


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)


@cache
def tree_of(module: str) -> ast.Module:
    path = ROOT / module.replace(".", "/")
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def is_pure(module: str) -> bool:
    """Whether the docstring says so: the word stands alone, or begins a clause, with a capital."""
    return re.search(r"\bPure\b", ast.get_docstring(tree_of(module)) or "") is not None


def ours() -> list[str]:
    return sorted(name for name in graph().modules if name.partition(".")[0] in PACKAGES)


def outside_of(module: str) -> set[str]:
    return {name for name in graph().find_modules_directly_imported_by(module) if name.partition(".")[0] in OUTSIDE}


def calls_of(module: str) -> Iterator[tuple[str, str]]:
    """Yield what a module calls: (function, "") or (method, what it is called on)."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, ""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node.func.value.id if isinstance(node.func.value, ast.Name) else ""


def functions_taken_from(module: str) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of what is imported from our modules and begins with a small letter: a function."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom) and node.module in graph().modules:
            yield from ((node.module, alias.name) for alias in node.names if alias.name[0].islower())


PURE = [module for module in ours() if is_pure(module)]


def test_there_are_pure_modules():
    assert len(PURE) > 30


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_reaches_nothing_outside_of_it(module: str):
    assert outside_of(module) == set()
    assert not [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
    assert {(on, name) for name, on in calls_of(module)} & CLOCKS == set()
    assert [name for name, on in calls_of(module) if name in FILES or (name, on) == ("open", "")] == []


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_takes_only_types_from_one_that_does_io(module: str):
    assert [f"{name} of {source}" for source, name in functions_taken_from(module) if outside_of(source)] == []
