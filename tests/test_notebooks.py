"""Every notebook runs as a script, from start to end, on the data it ships with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_as_a_script(notebook: Path, tmp_path: Path) -> None:
    for package in ("marimo", "altair"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'cachesim[notebooks]'")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, notebook], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    head, columns, now, *points = done.stdout.splitlines()
    assert head == "all models, lifetime as marked, tariff standard; now: default"
    assert columns.split()[:2] == ["floor", "charged"]
    # The standard tariff is what is assumed without one: its floor of 1,024 changes nothing.
    assert next(line for line in points if line.split()[0] == "1,024").split()[1:] == now.split()[1:]
    assert [line.split()[0] for line in points][:4] == ["256", "512", "768", "1,024"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), ("{}\n", "no usable record")])
def test_without_a_usable_log_a_notebook_says_so(
    notebook: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    for package in ("marimo", "altair"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'cachesim[notebooks]'")
    log = tmp_path / "my.jsonl"
    if content is not None:
        log.write_text(content)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, notebook, "--log", log], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"cachesim: {log}")
    assert message in line
