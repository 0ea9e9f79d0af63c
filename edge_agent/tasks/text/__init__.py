"""Texts: their vectors, labels, spans."""
