"""From log records to a prepared trace: every body parsed, hashed and counted once, as integers."""
