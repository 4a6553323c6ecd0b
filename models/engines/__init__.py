"""Engines: processes that run a checkpoint, and what is known of checkpoints, memory and hardware before one starts."""
