"""Log files in, one `LogRecord` a request out: opening, formats, times, usage, reading."""
