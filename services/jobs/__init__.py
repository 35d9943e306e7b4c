"""Jobs: asking for one, following it live, stopping it."""
