"""How well the archive is searched."""
