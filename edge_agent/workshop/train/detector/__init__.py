"""The detector's recipe."""
