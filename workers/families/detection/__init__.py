"""Detection: where things are in an image, as boxes with class names and scores."""
