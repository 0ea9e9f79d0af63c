"""Brokers of several nodes, and many sessions at once."""
