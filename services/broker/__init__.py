"""Celery as a doorbell: messages carry an id, are acknowledged early, and may be lost or doubled."""
