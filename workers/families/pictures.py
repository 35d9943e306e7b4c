"""Pictures for people: sheets of images as one PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image


def sheet(pictures: Sequence[Image.Image], *, columns: int = 3, gap: int = 6) -> bytes:
    """Lay pictures out in rows and return one PNG."""
    columns = min(columns, len(pictures))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    width = max(sum(p.width for p in row) + gap * (len(row) - 1) for row in rows)
    height = sum(max(p.height for p in row) for row in rows) + gap * (len(rows) - 1)
    page = Image.new("RGB", (width, height), "white")
    y = 0
    for row in rows:
        x = 0
        for picture in row:
            page.paste(picture, (x, y))
            x += picture.width + gap
        y += max(p.height for p in row) + gap
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()
