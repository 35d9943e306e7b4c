"""Model versions, and the bytes of everything that is stored."""
