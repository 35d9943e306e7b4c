"""The API server: composes the servicers of all resources into one process without torch."""
