"""Before a model serves: it is tried in a child process, held against its parent, and its variants are raced."""
