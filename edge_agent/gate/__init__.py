"""Before a model serves: tried in a child process, compared with its parent, raced."""
