"""The object store behind one port: a local directory or any S3 endpoint. Keys are built in `layout` only."""
