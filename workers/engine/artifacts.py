"""Files for people, left in the spool and announced to the supervisor."""

from __future__ import annotations

from pathlib import Path

from workers.engine.frames import FrameKind, FrameWriter


class Artifacts:
    """Writes artifacts whole before anyone hears of them; a name is used once a step."""

    def __init__(self, spool_dir: Path, frames: FrameWriter) -> None:
        self._directory = spool_dir / "artifacts"
        self._frames = frames

    def save(self, name: str, data: bytes, *, kind: str, content_type: str, step: int) -> None:
        path = self._directory / f"{step:010d}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self._frames.write(
            FrameKind.ARTIFACT, name=name, path=str(path), kind=kind, content_type=content_type, step=step
        )
