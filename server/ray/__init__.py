"""Winnow on a Ray cluster: replicas on Ray Serve, and a pool of actors for offline runs.

The only package that imports Ray, and it does so where it is used: without the extra `ray` nothing else changes.
"""
