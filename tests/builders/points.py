"""Points of a known Gaussian in the plane, as CSV files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

A = np.array([[1.0, 2.0], [-0.1, 0.5]])
MEAN = np.array([1.0, 2.0])
COVARIANCE = A.T @ A


def write_gaussian(directory: Path, *, seed: int = 0, train: int = 4000, val: int = 1000) -> Path:
    """Write `train.csv` and `val.csv` with columns x and y, drawn from N(MEAN, COVARIANCE)."""
    directory.mkdir(parents=True, exist_ok=True)
    for stream, (split, count) in enumerate((("train", train), ("val", val))):
        points = np.random.default_rng([seed, stream]).standard_normal((count, 2)) @ A + MEAN
        np.savetxt(directory / f"{split}.csv", points, fmt="%.7g", delimiter=",", header="x,y", comments="")
    return directory
