"""What an import may use. The figures bound memory, disk and time; none of them is a matter of taste."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

MIB = 2**20
GIB = 2**30


class ImportLimits(BaseModel):
    """Bounds of one import, handed to the child process as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_members: int = 1_000_000
    max_total_bytes: int = 60 * GIB
    max_ratio: int = 100
    """Unpacked bytes per archived byte; judged past `ratio_floor_bytes`, where a bomb starts to hurt."""
    ratio_floor_bytes: int = MIB
    max_name_bytes: int = 255
    max_path_bytes: int = 1024
    max_depth: int = 16
    max_image_bytes: int = 64 * MIB
    max_image_pixels: int = 50_000_000
    max_annotation_bytes: int = 512 * MIB
    max_boxes_per_image: int = 10_000
    max_classes: int = 10_000
    max_identities: int = 1_000_000
    max_mask_classes: int = 255
    max_points: int = 50_000_000
    """Numbers of a table of points, not rows; as float32 they take 200 MB."""
    max_text_bytes: int = 256 * MIB
    """Of all texts of a dataset: whoever trains on them holds them whole."""
    shard_bytes: int = 256 * MIB

    memory_bytes: int = 4 * GIB
    cpu_seconds: int = 600
    cpu_seconds_per_gib: int = 180
    """Decoding every image of a gigabyte of JPEGs takes about a minute on one core; this allows three."""

    wall_slack_seconds: int = 60

    def cpu_budget_seconds(self, archive_bytes: int) -> int:
        return self.cpu_seconds + self.cpu_seconds_per_gib * (archive_bytes // GIB)

    def wall_budget_seconds(self, archive_bytes: int) -> int:
        """Twice the processor time, because the machine has other work, and a while to start."""
        return 2 * self.cpu_budget_seconds(archive_bytes) + self.wall_slack_seconds
