"""Families of detectors: how each gives its boxes, and how it was trained."""
