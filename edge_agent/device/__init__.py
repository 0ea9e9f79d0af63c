"""The board: its memory, its service manager, what a child process may do."""
