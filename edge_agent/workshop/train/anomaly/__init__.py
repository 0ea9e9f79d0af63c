"""A model of what is usual, from your own pictures, sound or numbers: candidates side by side, and the best of them."""
