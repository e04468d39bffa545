"""Sweeps: a grid of variants over one prepared trace, kept as sums per model, principal and part of the log."""
