"""`make demo`: the demo models from nothing, by the commands that train anybody's reward models."""
