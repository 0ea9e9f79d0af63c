"""Unusual readings of sensors."""
