"""The Python SDK and the command line `trainyard`. Talks to a platform only over the wire."""
