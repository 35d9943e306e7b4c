"""Image to image: one picture drawn as another."""
