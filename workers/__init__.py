"""The data plane: what trains, exports and serves. Never imports grpc nor the servicers."""

from workers import imports

imports.install()
