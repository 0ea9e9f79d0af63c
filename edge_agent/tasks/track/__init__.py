"""Things that stay the same from one picture to the next."""
