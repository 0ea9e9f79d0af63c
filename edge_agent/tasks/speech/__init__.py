"""Where somebody speaks: sound cut into utterances."""
