"""Network files without a runtime: read, cut, rewritten."""
