"""The embedded default: every part of the platform on one machine under one state directory."""
