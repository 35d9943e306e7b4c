"""Style transfer: the content of one picture in the look of another, by the statistics of a network's features."""
