"""Runs the examples of README.md and notebooks/README.md and writes their output as it is now into the documents.

    python tools/refresh_readme.py            # rewrite the documents
    python tools/refresh_readme.py --check    # only say whether they are true; exit code 1 if not

A document runs from top to bottom in one empty folder in which `fixtures` stands. What a fence says decides:

    console          each `$ cachesim …` line is run; what it prints (both streams) stands below it
    python           is run; what it prints stands in the `text` fence that follows
    toml NAME        is the file NAME, written before anything below it runs (also `jsonl NAME`)

tests/test_readme.py runs the same and compares exactly.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENTS: Final = ("README.md", "notebooks/README.md")
COLUMNS: Final = 120
_FENCE: Final = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COLOUR_SWITCHES: Final = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "CACHESIM_DEBUG")


def refreshed(text: str, folder: Path) -> str:
    """`text` with the output of every example as it is now; the examples run in `folder`, which is empty before."""
    (folder / "fixtures").symlink_to(ROOT / "fixtures", target_is_directory=True)
    printed: str | None = None  # by the python fence above, for the text fence that shows it

    def replace(fence: re.Match[str]) -> str:
        nonlocal printed
        language, _, name = fence[1].partition(" ")
        body = fence[2]
        if language == "console":
            body = _console(body, folder)
        elif language == "text" and printed is not None:
            body, printed = printed, None
        elif language == "python":
            printed = _output([sys.executable, "-c", body], folder)
        elif name:
            (folder / name).write_text(body, encoding="utf-8")
        return f"```{fence[1]}\n{body}```"

    return _FENCE.sub(replace, text)


def _console(body: str, folder: Path) -> str:
    shown = []
    for line in body.splitlines():
        if line.startswith("$ "):
            program, *arguments = shlex.split(line[2:], comments=True)
            if program != "cachesim":
                raise ValueError(f"{line}: only cachesim is run in the documents")
            shown.append(
                f"{line}\n{_output([sys.executable, '-m', 'cachesim', *_expanded(arguments, folder)], folder)}"
            )
    return "".join(shown)


def _expanded(arguments: list[str], folder: Path) -> list[str]:
    """Patterns as a shell would expand them."""
    found = []
    for argument in arguments:
        matches = sorted(str(path.relative_to(folder)) for path in folder.glob(argument)) if "*" in argument else []
        found += matches or [argument]
    return found


def _output(command: list[str], folder: Path) -> str:
    """Both streams in the order written, without trailing spaces and trailing empty lines."""
    environment = {name: value for name, value in os.environ.items() if name not in _COLOUR_SWITCHES}
    environment |= {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.decode().rstrip().split("\n") if done.stdout)


def main(arguments: list[str]) -> int:
    """Refreshes or checks the documents; 1 if one of them was not true under --check."""
    stale = []
    for name in DOCUMENTS:
        document = ROOT / name
        before = document.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            after = refreshed(before, Path(folder))
        if after != before:
            stale.append(name)
            if "--check" not in arguments:
                document.write_text(after, encoding="utf-8")
    print(f"changed: {', '.join(stale) or 'nothing'}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
