"""The text encoder's recipe."""
