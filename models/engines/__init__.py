"""Engines: processes that run a checkpoint, and the checks of checkpoints, memory and hardware before."""
