"""Keeps everything moving: messages for what is due, leases that ran out, garbage. Every part may run twice."""
