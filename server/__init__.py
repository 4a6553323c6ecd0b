"""The server: the best-of-N pipeline, its settings and command line, and its doors (HTTP today, files next)."""
