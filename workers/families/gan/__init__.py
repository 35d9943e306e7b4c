"""Generative adversarial networks: noise in, images or points out."""
