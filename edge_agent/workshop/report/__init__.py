"""What was made and how it went, as a page."""
