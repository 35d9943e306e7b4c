"""The validation report kept with every version: what was imported, what was left aside, what to look at."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

MAX_EXAMPLES = 20


class SplitCounts(BaseModel):
    """Figures of one split; those that make no sense for its family are None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int | None = None
    boxes: int | None = None
    images_without_boxes: int | None = None
    boxes_per_class: dict[str, int] | None = None
    images_per_class: dict[str, int] | None = None
    images_per_attribute: dict[str, int] | None = None
    pixels_per_class: dict[str, int] | None = None
    ignored_pixels: int | None = None
    identities: int | None = None
    images_per_identity: tuple[int, int] | None = None
    """Least and most."""
    points: int | None = None
    lines: int | None = None
    """Those that are not blank."""
    characters: int | None = None
    pairs: int | None = None

    def units(self) -> dict[str, int]:
        """Return the figures that say how much there is, by unit."""
        units = ("images", "boxes", "identities", "points", "lines", "characters", "pairs")
        figures = {unit: getattr(self, unit) for unit in units}
        return {unit: count for unit, count in figures.items() if count is not None}


class ImageSizes(BaseModel):
    """The range of widths and heights in pixels, least and most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: tuple[int, int]
    height: tuple[int, int]


class Finding(BaseModel):
    """Something that is no error but may surprise: how often, and the first few places."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = 0
    examples: list[str] = []


class Report(BaseModel):
    """JSON-ready; stored with the dataset version and shown to its owner."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str
    family: str
    classes: list[str] = []
    attributes: list[str] = []
    splits: dict[str, SplitCounts]
    image_bytes: int = 0
    image_sizes: ImageSizes | None = None
    crowd_boxes: int = 0
    difficult_boxes: int = 0
    dropped_zero_area_boxes: Finding = Finding()
    clipped_boxes: Finding = Finding()
    duplicate_images: Finding = Finding()
    duplicate_lines: Finding = Finding()
    split_leakage: Finding = Finding()
    near_duplicates: Finding = Finding()
    conflicting_labels: Finding = Finding()
    verification_pairs: int = 0
    empty_classes: list[str] = []
    ignored: dict[str, int] = {}
    notes: list[str] = []


class Tally:
    """Counts places and keeps the first few."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, where: str) -> None:
        self.count += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(where)

    def finding(self) -> Finding:
        return Finding(count=self.count, examples=self.examples)
