"""Representation learning: what images have in common, learned without being told what is in them."""
