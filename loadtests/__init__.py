"""Latency and throughput under load: `winnow loadtest`, and the parts that the benchmarks share.

A `Scenario` describes requests and arrivals, a `Target` answers, `runner` sends the one to the other, and `measures`
turns the samples into numbers. Works with any OpenAI-compatible server: of Winnow it knows only the wire.
"""
