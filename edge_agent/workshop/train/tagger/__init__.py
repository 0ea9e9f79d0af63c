"""A tagger of text from marked sentences, on an edge-bert."""
