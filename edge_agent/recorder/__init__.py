"""Pictures of what was found: the best of each object, films around alerts, samples to be corrected."""
