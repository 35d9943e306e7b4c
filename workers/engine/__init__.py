"""The training engine: one loop for every recipe, exact resume, checkpoints off the step path."""
