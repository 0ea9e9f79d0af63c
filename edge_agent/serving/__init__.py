"""A model's name becomes a model that answers."""
