"""The page: to look, to set, to ask; and the API and metrics beside it, over HTTP."""
