"""Faces: an embedding of every picture, near for one person and far for two."""
