"""Deployments: asking for an endpoint, and predictions through it."""
