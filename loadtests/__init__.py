"""Latency under load. The tester itself is not here yet; the folder holds its place in the house."""
