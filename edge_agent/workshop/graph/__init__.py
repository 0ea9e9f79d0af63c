"""A network's graph, shown and edited."""
