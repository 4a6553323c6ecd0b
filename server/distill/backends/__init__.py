"""Backends, which sample and score offline: engines in this process, or a running Winnow server."""
