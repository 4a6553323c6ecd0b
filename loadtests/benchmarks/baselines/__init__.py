"""Baselines for best-of-K serving, and the benchmark that compares Winnow with them.

`commands` lists the programs and `fleet` starts those that are needed. `systems` asks the ones that speak HTTP,
`subprocess_client` the libraries behind a driver script. `scorer` is the client-side half of best-of-N that a
user writes around a bare server. `bench` measures, `figures` does the arithmetic, `agreement` checks that the
systems return the same scores, and `page` writes the result. Everything measured is a process of its own,
Winnow included: an engine or a baseline's library is imported in the two drivers alone, which run as processes.
"""
