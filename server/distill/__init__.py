"""Offline runs: a file of prompts in, the winners out as training data, through the same pipeline as HTTP."""
