"""Reward models by their own: calibrated and measured on labelled answers and on preferences, offline."""
