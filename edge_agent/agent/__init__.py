"""The service: pipelines opened, watched and stopped; models exchanged while they run."""
