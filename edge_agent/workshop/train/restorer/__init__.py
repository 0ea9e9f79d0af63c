"""A small network that makes small text readable, judged by the network that reads it."""
