"""A generator of small pictures, trained against a critic on crops of your own camera."""
