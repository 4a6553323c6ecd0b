"""What the dial buys: reward and true accuracy against tokens and latency, for each way of spending less than all K candidates."""
