"""Where `--draw` saves to: folders are made, and whatever keeps a drawing from being saved is said of the option."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.client.command import CommandFailed
from services.client.draw import drawing_path, is_picture
from services.client.pictures import NoPicture


class NotDrawn(CommandFailed):
    """A drawing could not be saved; the answer is there all the same, and is to be shown before this is raised."""


def check_target(target: Path, count: int = 1) -> None:
    """Refuse where `count` drawings cannot go for its name, before anything is asked; several may go into a folder.

    Raises:
        NotDrawn: its name is no picture's.
    """
    if not target.is_dir() and count == 1 and not is_picture(target):
        example = target.with_name(f"{target.stem or 'out'}.png")
        raise NotDrawn(f"--draw {target}: is not named like a picture; say {example}, or a folder that is there")


@contextmanager
def canvas(target: Path, number: int = 1, count: int = 1, *, stem: str) -> Iterator[Path]:
    """Yield the path of one of `count` drawings, in a folder that is there.

    Raises:
        NotDrawn: the answer has nothing to draw, or the drawing cannot be saved there.
    """
    try:
        path = drawing_path(target, number, count, stem=stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
    except NoPicture as err:
        raise NotDrawn(str(err)) from err
    except OSError as err:
        why = f"{err.filename}: {err.strerror}" if err.strerror else str(err)
        raise NotDrawn(f"--draw {target}: {why}") from err
    except ValueError as err:
        # Pillow's, of a suffix that is no kind of picture.
        raise NotDrawn(f"--draw {target}: {err}") from err
