"""What else answers with the best of K, beside Winnow: baselines, and the benchmark that compares them.

`servers` starts and ends processes, `commands` says how, `fleet` which of them a system needs; `systems` and `companions` ask them;
`scorer` is the client-side half of best-of-N that a user writes around a bare server; `bench` measures, `figures` does the arithmetic,
`agreement` checks that the systems do the same thing, and `page` writes it up. Everything is a process of its own, Winnow too: nothing here
imports an engine or a peer's library but the two drivers, which are run as processes.
"""
