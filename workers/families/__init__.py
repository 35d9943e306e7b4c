"""The model families. One folder a family; `catalog` names every recipe without importing torch."""
