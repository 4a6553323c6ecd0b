"""Latency and throughput under load: `winnow loadtest`, and the parts that other benchmarks are made of.

A `Scenario` says what is asked and when, a `System` answers, `running` offers the one to the other, `measures` says what came of it.
Works with any OpenAI-compatible server; of Winnow it knows the wire alone.
"""
