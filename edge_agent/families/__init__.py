"""Families of networks that give boxes: how each lays out its outputs, is recognised and was trained."""
