"""Networks with fewer bits."""
