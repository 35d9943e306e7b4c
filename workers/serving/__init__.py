"""Bundles made servable: export, the parity gate, the archive, and the one file that knows TorchServe."""
