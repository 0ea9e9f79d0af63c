"""Events on disk, from the moment they are counted until the broker has them."""
