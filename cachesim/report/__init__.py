"""Results of a run as rows, tables and files; columns are declared once, in `columns`."""
