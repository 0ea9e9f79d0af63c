"""Sound passes once a wake word was heard."""
