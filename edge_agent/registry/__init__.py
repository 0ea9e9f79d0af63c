"""Which models there are here, and where their files lie.

A model is a folder with a manifest: in HOME/models (added by the user) or in the carried ``models/`` (the
catalogue). Files are carried beside the manifest, or lie in HOME/blobs by their hash once they were fetched.
"""
