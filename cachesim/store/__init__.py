"""The run database: one DuckDB file that holds traces, runs, results, tariffs and the index."""
