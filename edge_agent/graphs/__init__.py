"""Network files, read and changed without a runtime."""
