"""The commands of `trainyard`, one module a group."""
