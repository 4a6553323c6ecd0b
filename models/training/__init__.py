"""Training and evaluation of policies and reward models."""
