"""Instants and time zones of a report, on DuckDB's bundled time zone database (no system files needed)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from cachesim.errors import UsageError

if TYPE_CHECKING:
    import duckdb

_LAST_US: Final = 253_402_300_799_000_000


def check_timezone(con: duckdb.DuckDBPyConnection, name: str) -> str:
    """`name` if DuckDB's bundled time zone database has it; raises UsageError with the nearest names."""
    known = [zone for (zone,) in con.execute("SELECT name FROM pg_timezone_names()").fetchall()]
    if name in known:
        return name
    near = get_close_matches(name, known, 3)
    hint = f"did you mean {' or '.join(near)}?" if near else "expected a name like Europe/Berlin"
    raise UsageError(f"--timezone {name!r}: unknown, {hint}")


def parse_instant(con: duckdb.DuckDBPyConnection, option: str, text: str, timezone: str) -> int:
    """µs UTC of a date (its midnight) or RFC 3339 time; without an offset it is local to `timezone`.

    Raises UsageError naming `option` if the text is neither.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text!r}: expected a date (2026-01-31) or a time (2026-01-31T12:00:00Z)") from None
    if when.tzinfo is not None:
        return micros(when)
    local = micros(when.replace(tzinfo=UTC))
    con.execute("SELECT epoch_us(timezone(?, make_timestamp(?)))", [check_timezone(con, timezone), local])
    row = con.fetchone()
    return int(row[0]) if row else local


def parse_period(
    con: duckdb.DuckDBPyConnection, since: str | None, until: str | None, timezone: str
) -> tuple[int | None, int | None]:
    """--since and --until in µs UTC, None where not given. Raises UsageError as `parse_instant` and `check_order`."""
    since_us = None if since is None else parse_instant(con, "--since", since, timezone)
    until_us = None if until is None else parse_instant(con, "--until", until, timezone)
    check_order("--since, --until", since_us, until_us)
    return since_us, until_us


def check_order(option: str, since_us: int | None, until_us: int | None) -> None:
    """Raises UsageError, naming `option`, for a period in which nothing can lie."""
    if since_us is not None and until_us is not None and since_us >= until_us:
        how = "begins after it ends" if since_us > until_us else "ends where it begins"
        raise UsageError(f"{option}: a period that {how} ({instant_text(since_us)} to {instant_text(until_us)})")


def micros(when: datetime) -> int:
    """Whole µs since the epoch, exactly."""
    delta = when - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def instant_text(at_us: int) -> str:
    """RFC 3339 UTC with as many decimals as needed: none, 3 or 6. What is later than it can say is its last second.

    >>> instant_text(-62_135_596_800_000_000), instant_text(2**58)
    ('0001-01-01T00:00:00Z', '9999-12-31T23:59:59Z')
    """
    seconds, fraction = divmod(min(at_us, _LAST_US), 1_000_000)
    text = (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat()
    if not fraction:
        return f"{text}Z"
    return f"{text}.{fraction // 1000:03d}Z" if fraction % 1000 == 0 else f"{text}.{fraction:06d}Z"
