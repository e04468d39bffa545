"""The shape of the package: imports point inwards, the core is pure, heavy packages are imported where needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "cachesim"

# Every arrow there may be. A new one is a decision: add it here, pointing inwards, or move the code.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "collector": set(),
    "core": set(),
    "index": {"core"},
    "counting": {"errors"},
    "trace": {"core", "errors"},
    "report": {"core", "errors", "fan_out", "recommend"},
    "recommend": {"core"},
    "fan_out": {"core", "index", "replay", "store"},
    "episodes": {"core", "index", "replay", "store"},
    "lives": {"core", "episodes", "replay", "store"},
    "synth": set(),
    "assumed_prices": {"core"},
    "config": {"assumed_prices", "core", "errors", "trace"},
    "tariffs": {"assumed_prices", "config", "core", "report"},
    "starter": {"assumed_prices", "core", "report", "tariffs"},
    "prepare": {"core", "counting"},
    "sweep": {"assumptions", "core", "errors", "run", "store", "stored_plan"},
    "replay": {"core", "index"},
    "store": {"collector", "core", "errors", "index", "prepare", "replay"},
    "conformance": {"core", "errors", "index", "prepare", "replay", "trace"},
    "parallel": {"core", "errors", "prepare", "trace"},
    "pipeline": {"collector", "config", "core", "counting", "errors", "parallel", "prepare", "store", "trace"},
    "run": {"core", "errors", "index", "replay", "sensitivity", "store"},
    "sensitivity": {"core", "index", "replay", "store"},
    "check": {"core", "store"},
    "assumptions": {"core", "run", "store", "trace"},
    "repricing": {"core", "store"},
    "rehearsal": {
        "assumed_prices",
        "assumptions",
        "collector",
        "core",
        "pipeline",
        "run",
        "store",
        "stored_plan",
        "trace",
    },
    "comparison": {
        "assumptions",
        "config",
        "core",
        "errors",
        "pipeline",
        "rehearsal",
        "report",
        "repricing",
        "run",
        "stored_plan",
    },
    "stored_plan": {"assumed_prices", "assumptions", "config", "core", "errors", "pipeline", "run", "store", "trace"},
}
OUTERMOST = {"api", "cli", "__main__", "__init__"}  # may import everything; nothing imports api, and cli only __main__
CORE_PACKAGES = {"orjson", "msgspec"}
IMPURE = {"asyncio", "io", "logging", "os", "pathlib", "random", "shutil", "socket", "subprocess", "sys", "tempfile",
          "threading", "time"}  # fmt: skip
HEAVY = {
    "altair",
    "duckdb",
    "fastokens",
    "genai_prices",
    "numba",
    "numpy",
    "plotille",
    "polars",
    "tokenizers",
    "vl_convert",
}


@dataclass(frozen=True)
class Import:
    """One imported module, where, and whether importing the importing module triggers it."""

    module: str
    where: str
    at_module_level: bool


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """The part of the package a module belongs to: its folder, or itself at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[Import]:
    """All imports of a module but those only a type checker sees."""
    return list(_imports(ast.parse(path.read_text(encoding="utf-8")).body, path, at_module_level=True))


def _imports(body: list[ast.stmt], path: Path, at_module_level: bool) -> Iterator[Import]:
    for node in body:
        where = f"{path.relative_to(ROOT)}:{node.lineno}"
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, where, at_module_level) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where}: relative import"
            assert node.module
            if node.module == "cachesim":  # `from cachesim import x`: x may be a module
                yield from (Import(f"cachesim.{alias.name}", where, at_module_level) for alias in node.names)
            else:
                yield Import(node.module, where, at_module_level)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _imports(node.orelse, path, at_module_level)
        else:
            inside = at_module_level and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                inner = getattr(node, field, [])
                for child in inner:
                    statements = [child] if isinstance(child, ast.stmt) else child.body
                    yield from _imports(statements, path, inside)


def test_every_part_of_the_package_has_its_arrows() -> None:
    assert {unit(path) for path in modules()} == set(ARROWS) | OUTERMOST


def test_the_arrows_have_no_cycle() -> None:
    settled: set[str] = set()
    while inner := {name for name, targets in ARROWS.items() if targets <= settled} - settled:
        settled |= inner
    assert set(ARROWS) - settled == set()


@pytest.mark.parametrize("name", sorted(ARROWS))
def test_imports_point_inwards(name: str) -> None:
    known = {unit(path) for path in modules()}
    outward = [
        f"{found.where} imports {found.module}"
        for path in modules()
        if unit(path) == name
        for found in imports(path)
        if found.module.startswith("cachesim.")
        and (target := found.module.split(".")[1]) in known
        and target not in ARROWS[name] | {name}
    ]
    assert outward == []


def test_the_core_is_pure() -> None:
    """Standard library without files, processes, clock and chance; JSON codecs; nothing else."""
    allowed = (sys.stdlib_module_names - IMPURE) | CORE_PACKAGES | {"cachesim"}
    foreign = [
        f"{found.where} imports {found.module}"
        for path in modules()
        if unit(path) == "core"
        for found in imports(path)
        if found.module.split(".")[0] not in allowed
    ]
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno} calls {ast.unparse(node.func)}"
        for path in modules()
        if unit(path) == "core"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"open", "print", "input", "datetime.now"}
    ]
    assert foreign + calls == []


def test_heavy_packages_are_imported_where_they_are_needed() -> None:
    early = [
        f"{found.where} imports {found.module}"
        for path in modules()
        for found in imports(path)
        if found.at_module_level and found.module.split(".")[0] in HEAVY
    ]
    assert early == []


def test_the_command_line_starts_without_heavy_packages() -> None:
    code = "import sys, cachesim.cli; from cachesim.cli.lazy import application; application(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "cachesim" in loaded
    assert loaded & HEAVY == set()


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in modules()
        if not (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").strip()
    ]
    assert silent == []


def test_the_walk_sees_every_import() -> None:
    """Imports in functions, branches and handlers count, those for type checkers only do not."""
    path = PACKAGE / "imaginary.py"
    text = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import polars\nelse:\n    import duckdb\n"
        "try:\n    import a\nexcept ImportError:\n    import b\n"
        "class C:\n    import c\n    def f(self):\n        with x:\n            from cachesim import cli\n"
    )
    found = list(_imports(ast.parse(text).body, path, at_module_level=True))
    assert [(i.module, i.at_module_level) for i in found] == [
        ("typing", True), ("duckdb", True), ("a", True), ("b", True), ("c", True), ("cachesim.cli", False),
    ]  # fmt: skip
