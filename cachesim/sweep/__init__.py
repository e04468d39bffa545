"""Sweeps: a grid of variants over one prepared trace, kept as sums per model, principal and part of the log."""

from __future__ import annotations

from cachesim.sweep.sweep import HOLD_OUT, sweep

__all__ = ["HOLD_OUT", "sweep"]
