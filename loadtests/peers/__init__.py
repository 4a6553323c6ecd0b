"""What answers with the best of K beside Winnow, and the benchmarks that compare."""
