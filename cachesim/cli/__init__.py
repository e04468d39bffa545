"""The command line: `main` runs one command and turns every failure into one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from cachesim.errors import CachesimError

_COMPLETION: Final = ("--show-completion", "--install-completion")
INTERRUPTED: Final = 130
BUG: Final = 70


def main(args: Sequence[str] | None = None) -> None:
    """Run `cachesim` with `args` (default: the process arguments) and exit with the code of `cachesim.errors`."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # streams that tests put in place
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    code = _run(sys.argv[1:] if args is None else list(args))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
    sys.exit(code)


def _run(args: list[str]) -> int:
    import typer
    from typer.exceptions import TyperException

    from cachesim.cli.lazy import ReaderGone, application

    if len(args) == 2 and args[0] in _COMPLETION:  # typer takes the shell from its parent, unless it must not look
        os.environ["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
    try:
        code = application().main(args, prog_name="cachesim", standalone_mode=False)
    except CachesimError as error:
        return _say(str(error), error.exit_code)
    except TyperException as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", INTERRUPTED)
    except ReaderGone:
        _silence_stdout()
        return 0
    except MemoryError:
        return _say("out of memory; see --help for options that need less", 1)
    except Exception as error:
        if _was_interrupted(error):
            return _say("interrupted", INTERRUPTED)
        if _is_full(error):
            _silence_stdout()
            return _say(_FULL, 2)
        return _say(_DAMAGED, 2) if _is_damage(error) else _bug(error)
    if code == INTERRUPTED:  # typer turns Ctrl-C inside a command into this result
        return _say("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0


_DAMAGED: Final = (
    "the run database cannot be read, it is damaged or cut off; put a copy back, or replay into another file with --db"
)


_FULL: Final = "no room is left for the answer, the run database or a temporary file; free some and try again"


def _is_full(error: BaseException) -> bool:
    """Whether a disk is full or a quota used up: Python tells by number, DuckDB in words."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return type(error).__module__.endswith("duckdb") and "No space left on device" in str(error)


def _is_damage(error: BaseException) -> bool:
    """Whether DuckDB says that its own file does not hold together."""
    kinds = ("IOException", "FatalException", "SerializationException", "Error")
    return type(error).__module__.endswith("duckdb") and type(error).__name__ in kinds


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind it: DuckDB gives a query's own error for it, and cleaning up may fail on top."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "InterruptException":
            return True
        if isinstance(error, RuntimeError) and "Query interrupted" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _say(message: str, code: int) -> int:
    from cachesim.report.formats import clean

    print(f"cachesim: {' '.join(clean(line) for line in message.splitlines())}", file=sys.stderr)
    if os.environ.get("CACHESIM_DEBUG") == "1":
        traceback.print_exc()
    return code


def _usage(error: Exception) -> int:
    """A mistake on the command line, with the nearest name if there is one."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    ctx = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)
        return 2
    wrong = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and wrong and ctx is not None:
        options = [o for parameter in ctx.command.get_params(ctx) for o in parameter.opts if o.startswith("--")]
        near = get_close_matches(wrong, options, 1)
        message = f"{error.message}." + (f" Did you mean {near[0]}?" if near else "")  # type: ignore[attr-defined]
    where = f" (see `{ctx.command_path} --help`)" if ctx is not None else ""
    return _say(f"{message.rstrip()}{where}", 2)


def _bug(error: Exception) -> int:
    """One line with the type and the place, never the message: it may quote the data."""
    here = Path(__file__).parents[1]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if here in Path(f.filename).parents]
    last = frames[-1] if frames else None
    place = f"cachesim/{Path(last.filename).relative_to(here)}:{last.lineno}" if last else "outside cachesim"
    return _say(
        f"this is a bug in cachesim: {type(error).__name__} at {place}; please report it"
        " (CACHESIM_DEBUG=1 shows the traceback, which may contain data)",
        BUG,
    )


def _silence_stdout() -> None:
    """The reader has gone (`| head`): let the interpreter's last flush go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
