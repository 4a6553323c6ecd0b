"""Benchmarks: black boxes over HTTP or a subprocess. They are run from the repository and are not part of the wheel."""
