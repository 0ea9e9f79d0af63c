"""Lines of text in a picture."""
