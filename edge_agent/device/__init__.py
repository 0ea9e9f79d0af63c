"""The board that this runs on: what it is, how it is, what a child process may do on it."""
