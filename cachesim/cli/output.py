"""Where results go: data to stdout or a file that appears whole or not at all, words to stderr."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Final, Literal

import typer

from cachesim.errors import InputError, UsageError
from cachesim.report.formats import Format, Report, clean, write
from cachesim.store.db import is_database

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH: Final = 120

# The options of every command that answers from a run database.
Database = Annotated[str, typer.Option("--db", metavar="FILE", help="The run database.")]
Form = Annotated[Format, typer.Option("--format", "-f", help="How to write it; all but table are exact.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file, not to stdout.")]
Explain = Annotated[bool, typer.Option("--explain-columns", help="Define every column below the table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks on stderr.")]


def console(*, stderr: bool = False, file: IO[str] | None = None) -> Console:
    """A console as wide as the terminal, COLUMNS, or PIPE_WIDTH where the output is no terminal."""
    from rich.console import Console

    class OpenConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the program with 1, which is for checks that failed

    target = file or (sys.stderr if stderr else sys.stdout)
    piped = not target.isatty() and not os.environ.get("COLUMNS")
    return OpenConsole(file=target, width=PIPE_WIDTH if piped else None, highlight=False, soft_wrap=False, markup=False)


@contextmanager
def screen(output: Path | None) -> Iterator[Console]:
    """The console that shows an answer to people: stdout, or a file that is written as a whole when all is said."""
    if output is None:
        yield console()
        return
    text = io.StringIO()
    yield console(file=text)
    with whole_file(output) as file:
        file.write(text.getvalue().encode())


def emit(report: Report, form: Format, output: Path | None) -> None:
    """Write the report in a form for programs; UsageError for Parquet on a terminal, InputError for bad paths."""
    if output is None:
        if form is Format.PARQUET and sys.stdout.isatty():
            raise UsageError("--format parquet: binary, not for a terminal; add --output FILE")
        if form is Format.CSV and sys.stdout.isatty():  # a file holds names as they are, a terminal would obey them
            text = io.BytesIO()
            write(report, form, text)
            sys.stdout.write("\n".join(map(clean, text.getvalue().decode().split("\n"))))
            return
        sys.stdout.flush()
        write(report, form, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    with whole_file(output) as file:
        write(report, form, file)


def keep_inputs(files: Sequence[str], **written: Path | None) -> None:
    """Raises UsageError for an option (its name in Python) that would replace a file that is read, be it by a link."""
    read = [Path(file) for file in files]
    for name, path in written.items():
        if path is not None and path.is_file() and any(file.exists() and path.samefile(file) for file in read):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} {path}: one of the inputs, which would be replaced; write to another file")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that replaces `path` only when everything is written; devices and pipes are written to as they are.

    What writers that were killed left beside it is removed. Raises InputError for a place that cannot be written to,
    and for a database: a report must never replace one.
    """
    if path.is_dir() or not path.name:
        raise InputError(f"{path}: a directory; name a file to write to")
    if _is_device(path):
        with _opened(path, path, "ab") as file:  # what stdout leads to is not cut off either
            yield file
        return
    if is_database(path):
        raise InputError(f"{path}: a DuckDB database, which would be replaced; write to another file")
    target = path.resolve()  # a link stays one
    _remove_leftovers(target)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with _opened(part, path, "wb") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _is_device(path: Path) -> bool:
    """Whether it is no file to replace: /dev/null, /dev/stdout even where that leads to a file, a pipe."""
    return (path.exists() and not path.is_file()) or path.absolute().parts[1:2] in (("dev",), ("proc",))


def _opened(place: Path, path: Path, mode: Literal["ab", "wb"]) -> IO[bytes]:
    """`place`, open to write what `path` is to hold; raises InputError."""
    try:
        return place.open(mode)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --output") from error


def _remove_leftovers(path: Path) -> None:
    """Delete `path.PID.part` of processes that are gone: nobody else would, and nobody reads them."""
    for part in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        pid = part.name.removeprefix(f"{path.name}.").removesuffix(".part")
        if pid.isascii() and pid.isdigit() and not _is_running(int(pid)):
            with suppress(OSError):  # somebody else's file; it is in nobody's way
                part.unlink()


def _is_running(pid: int) -> bool:
    if os.name != "posix":
        return True  # asking would end the process there
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
