"""Reading a log with several processes: each prepares the lines of its share, the parent puts the results together."""
