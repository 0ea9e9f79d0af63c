"""People are told of events, and a larger model is asked about them: chosen, waiting on disk, sent."""
