"""What a bare model file is, read from the file itself."""
