"""Events on disk, from when they are counted until the broker has them."""
