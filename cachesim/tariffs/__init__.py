"""Tariff ledgers by themselves: every row and what follows from it, what is wrong, what two sets differ in."""
