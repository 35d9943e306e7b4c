"""Datasets: what strangers upload becomes one checked, immutable, canonical version."""
