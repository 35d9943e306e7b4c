"""The control plane: the API server, the controller, the agent and the client. Never imports torch."""
