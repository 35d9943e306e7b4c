"""The gRPC server: its settings, what happens around every call, and how errors become statuses."""
