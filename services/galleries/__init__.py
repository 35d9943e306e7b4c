"""Galleries: faces of known people, compared with pictures by the embeddings of one model version."""
