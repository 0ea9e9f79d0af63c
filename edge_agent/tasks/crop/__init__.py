"""The pictures of what was found in a picture."""
