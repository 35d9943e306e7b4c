"""Copies of a platform's metadata and objects elsewhere, their way back, and whether either is whole."""
