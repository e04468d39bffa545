"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow; that is no finding about the program.
settings.register_profile("cachesim", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cachesim")


@pytest.fixture(autouse=True, scope="session")
def _no_terminal() -> Iterator[None]:
    """Tables have the width they have in a pipe, whatever terminal the tests are started in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        yield


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """`real_data("cassettes")` is that folder of the real data, or a skip that says what is missing."""

    def find(name: str) -> Path:
        root = os.environ.get("CACHESIM_TEST_DATA")
        if not root:
            pytest.skip("CACHESIM_TEST_DATA is not set: it names the folder of real logs")
        path = Path(root) / name
        if not path.exists():
            pytest.skip(f"CACHESIM_TEST_DATA has no {name}")
        return path

    return find
