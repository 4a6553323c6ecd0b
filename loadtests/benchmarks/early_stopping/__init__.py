"""Early stopping measured: reward, true accuracy, tokens and latency of each way to spend less than
all K candidates.
"""
