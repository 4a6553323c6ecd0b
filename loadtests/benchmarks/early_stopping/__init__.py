"""The benchmark of early stopping: reward, true accuracy, tokens and latency of each setting."""
