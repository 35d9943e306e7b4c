"""The agent beside one TorchServe: makes it serve what deployments ask for, and reports what it sees."""
