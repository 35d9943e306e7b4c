"""A folder a person: `train/ANNA/1.jpg`, or `ANNA/1.jpg` where the split is still to be chosen.

No person may be in two splits: what is asked of a face network is to tell strangers apart.
"""

from __future__ import annotations

from services.datasets.image_folder import ignored_files, labelled_images
from services.datasets.source import Reading, SourceDataset

FORMAT = "identity_folders"


def read(reading: Reading) -> SourceDataset:
    """List the images of the tree by person; what is wrong goes to the problems."""
    people, images = labelled_images(reading, remedy="move it into the folder of a person")
    return SourceDataset(FORMAT, people, images, ignored_files(reading.tree), family="face")
