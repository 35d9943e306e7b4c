"""Drawn faces: people who differ in build and colours, photographed with and without smile and glasses.

What belongs to a person (sex, shape of the head, hair, eyes, nose, mouth, colours) is drawn once;
smile, glasses, pose, light and noise anew for every picture, so that pixels alone tell little about
who it is. The same arguments write the same files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

ATTRIBUTES = ("Eyeglasses", "Male", "Smiling")
_SCALE = 4
Colour = tuple[int, int, int]
Palette = Literal["wide", "narrow"]


@dataclass(frozen=True, slots=True)
class Person:
    """What stays the same in all pictures of one person; lengths are shares of the picture's side."""

    is_male: bool
    head_width: float
    head_height: float
    jaw: float
    eye_distance: float
    eye_size: float
    eye_height: float
    brow_tilt: float
    brow_width: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    fringe: float
    hair_length: float
    skin: Colour
    hair: Colour
    iris: Colour


@dataclass(frozen=True, slots=True)
class Shot:
    """What differs from picture to picture."""

    is_smiling: bool
    has_glasses: bool
    background: Colour
    turn_degrees: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    light: float = 0.0
    brightness: float = 1.0
    noise: float = 0.0


def draw_person(rng: np.random.Generator, *, palette: Palette = "wide", is_male: bool | None = None) -> Person:
    """Return a random person; a narrow palette keeps colours and build near one mean."""
    spread = 1.0 if palette == "wide" else 0.25
    male = bool(rng.random() < 0.5) if is_male is None else is_male

    def about(middle: float, reach: float) -> float:
        return float(middle + spread * rng.uniform(-reach, reach))

    tone = about(0.55, 0.45)
    skin = _mix((94, 58, 40), (255, 224, 196), tone)
    hair = _mix((28, 20, 16), (216, 178, 96), about(0.4, 0.4))
    iris = _mix((70, 45, 25), (90, 150, 210), about(0.5, 0.5))
    return Person(
        is_male=male,
        head_width=about(0.29, 0.05),
        head_height=about(0.38, 0.04),
        jaw=about(0.85 if male else 0.6, 0.12),
        eye_distance=about(0.13, 0.035),
        eye_size=about(0.05, 0.014),
        eye_height=about(-0.04, 0.05),
        brow_tilt=about(0.0, 0.03),
        brow_width=about(0.03 if male else 0.018, 0.008),
        nose_length=about(0.12, 0.05),
        nose_width=about(0.05, 0.025),
        mouth_width=about(0.12, 0.04),
        mouth_height=about(0.2, 0.035),
        fringe=about(-0.22, 0.06),
        hair_length=about(-0.05 if male else 0.4, 0.08),
        skin=skin,
        hair=hair,
        iris=iris,
    )


def draw_shot(rng: np.random.Generator, *, pose: float = 1.0, noise: float = 6.0) -> Shot:
    """Return a random shot; `pose` scales turns, shifts and zoom, from none at 0."""
    shift = rng.uniform(-0.05, 0.05, 2) * pose
    return Shot(
        is_smiling=bool(rng.random() < 0.5),
        has_glasses=bool(rng.random() < 0.5),
        background=_mix((60, 80, 120), (160, 165, 125), 0.5 + pose * float(rng.uniform(-0.5, 0.5))),
        turn_degrees=float(rng.uniform(-10, 10) * pose),
        shift=(float(shift[0]), float(shift[1])),
        zoom=float(1 + rng.uniform(-0.08, 0.08) * pose),
        light=float(rng.uniform(-0.35, 0.35) * pose),
        brightness=float(1 + rng.uniform(-0.25, 0.25) * pose),
        noise=noise,
    )


def draw_face(person: Person, shot: Shot, *, size: int, rng: np.random.Generator) -> Image.Image:
    """Return the picture of a person, RGB, `size` pixels a side."""
    large = size * _SCALE
    canvas = Image.new("RGB", (large, large), shot.background)
    _paint(_Brush(ImageDraw.Draw(canvas), large, shot.zoom), person, shot)
    move = tuple(shift * large for shift in shot.shift)
    canvas = canvas.rotate(
        shot.turn_degrees, Image.Resampling.BILINEAR, translate=(move[0], move[1]), fillcolor=shot.background
    )
    pixels = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), dtype=np.float64)
    across = np.linspace(-shot.light, shot.light, size)[None, :, None]
    lit = pixels * shot.brightness * (1 + across) + rng.normal(0, 1, pixels.shape) * shot.noise
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))


class _Brush:
    """Draws in shares of the picture's side around its middle, x to the right and y down."""

    def __init__(self, draw: ImageDraw.ImageDraw, side: int, zoom: float) -> None:
        self._draw, self._side, self._zoom = draw, side, zoom

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return ((0.5 + x * self._zoom) * self._side, (0.5 + y * self._zoom) * self._side)

    def oval(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Fill an ellipse by its middle and half axes."""
        self._draw.ellipse((*self._at(x - width, y - height), *self._at(x + width, y + height)), fill=colour)

    def ring(self, x: float, y: float, radius: float, width: float, colour: Colour) -> None:
        box = (*self._at(x - radius, y - radius), *self._at(x + radius, y + radius))
        self._draw.ellipse(box, outline=colour, width=self._pixels(width))

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self._draw.rectangle((*self._at(left, top), *self._at(right, bottom)), fill=colour)

    def line(self, points: list[tuple[float, float]], width: float, colour: Colour) -> None:
        self._draw.line([self._at(*point) for point in points], fill=colour, width=self._pixels(width), joint="curve")

    def _pixels(self, width: float) -> int:
        return max(1, round(width * self._zoom * self._side))


def _paint(brush: _Brush, person: Person, shot: Shot) -> None:
    wide, high = person.head_width, person.head_height
    brush.oval(0, -0.06, wide * 1.2, high * 1.05, person.hair)
    if person.hair_length > 0:
        brush.box(-wide * 1.2, -0.06, wide * 1.2, person.hair_length, person.hair)
    brush.oval(0, 0, wide, high, person.skin)
    brush.oval(0, high * 0.45, wide * person.jaw, high * 0.5, person.skin)
    brush.box(-wide * 0.95, -high, wide * 0.95, person.fringe, person.hair)
    for side in (-1, 1):
        _paint_eye(brush, person, side)
    dark = _mix(person.skin, (60, 20, 10), 0.45)
    brush.line([(0, person.eye_height), (0, person.eye_height + person.nose_length)], 0.02, dark)
    brush.oval(0, person.eye_height + person.nose_length, person.nose_width, 0.018, dark)
    _paint_mouth(brush, person, is_smiling=shot.is_smiling)
    if shot.has_glasses:
        _paint_glasses(brush, person)


def _paint_eye(brush: _Brush, person: Person, side: int) -> None:
    x, y, size = side * person.eye_distance, person.eye_height, person.eye_size
    brush.oval(x, y, size * 1.35, size, (245, 245, 245))
    brush.oval(x, y, size * 0.75, size * 0.85, person.iris)
    brow = y - size - 0.04
    ends = [(x - size * 1.5, brow + side * person.brow_tilt), (x + size * 1.5, brow - side * person.brow_tilt)]
    brush.line(ends, person.brow_width, person.hair)


def _paint_mouth(brush: _Brush, person: Person, *, is_smiling: bool) -> None:
    across = np.linspace(-1, 1, 9)
    depth = 0.06 if is_smiling else 0.0
    curve = [(float(x) * person.mouth_width, person.mouth_height + depth * (1 - float(x) ** 2)) for x in across]
    brush.line(curve, 0.04, (165, 40, 50))
    if is_smiling:
        upper = [(x, y - 0.028) for x, y in curve[2:-2]]
        brush.line(upper, 0.025, (250, 250, 250))


def _paint_glasses(brush: _Brush, person: Person) -> None:
    black, radius = (15, 15, 20), max(person.eye_size * 1.9, 0.1)
    for side in (-1, 1):
        brush.ring(side * person.eye_distance, person.eye_height, radius, 0.03, black)
        outer = side * (person.eye_distance + radius)
        brush.line([(outer, person.eye_height), (side * person.head_width, person.eye_height - 0.02)], 0.025, black)
    inner = max(person.eye_distance - radius, 0.0)
    brush.line([(-inner, person.eye_height), (inner, person.eye_height)], 0.03, black)


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    share = min(max(share, 0.0), 1.0)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def write_people(
    directory: Path,
    *,
    seed: int = 0,
    train: tuple[int, int] = (200, 20),
    val: tuple[int, int] = (60, 8),
    size: int = 32,
) -> Path:
    """Write identity folders `{train,val}/PERSON/PERSON_0001.png`; `train` and `val` are (people, pictures of each)."""
    for stream, (split, (people, shots)) in enumerate((("train", train), ("val", val))):
        _write_people(directory / split, f"{split}_", (seed, stream), people=people, shots=shots, size=size)
    return directory


def write_lfw(
    directory: Path,
    *,
    seed: int = 0,
    train: tuple[int, int] = (200, 20),
    val: tuple[int, int] = (60, 8),
    size: int = 32,
    pairs: int = 30,
) -> Path:
    """Write the same people in the layout of LFW: `lfw/PERSON/PERSON_0001.png` and `pairs.txt`.

    Ten folds of `pairs` pairs of one person and as many of two, of the people of val; no two folds share people.
    """
    for stream, (split, (people, shots)) in enumerate((("train", train), ("val", val))):
        _write_people(directory / "lfw", f"{split}_", (seed, stream), people=people, shots=shots, size=size)
    rng = np.random.default_rng([seed, 0x1F3])
    names = np.array([f"val_{n:04d}" for n in range(val[0])])
    lines = [f"10\t{pairs}"]
    for fold in np.array_split(rng.permutation(names), 10):
        lines += [_same_pair(fold, val[1], rng) for _ in range(pairs)]
        lines += [_other_pair(fold, val[1], rng) for _ in range(pairs)]
    (directory / "pairs.txt").write_text("\n".join(lines) + "\n")
    return directory


def write_celeba(
    directory: Path, *, seed: int = 0, count: int = 4000, size: int = 32, palette: Palette = "narrow", pose: float = 0.0
) -> Path:
    """Write faces in the layout of CelebA: pictures, attributes, identities and the partition, an eighth of it val.

    With a narrow palette and no pose a small generator learns them in a minute.
    """
    folder = directory / "img_align_celeba"
    folder.mkdir(parents=True, exist_ok=True)
    attributes, identities, partition = [str(count), " ".join(ATTRIBUTES)], [], []
    for number in range(1, count + 1):
        rng = np.random.default_rng([seed, 0xCE1EB, number])
        person, shot = draw_person(rng, palette=palette), draw_shot(rng, pose=pose, noise=3.0)
        name = f"{number:06d}.png"
        draw_face(person, shot, size=size, rng=rng).save(folder / name)
        flags = (shot.has_glasses, person.is_male, shot.is_smiling)
        attributes.append(f"{name} " + " ".join("1" if flag else "-1" for flag in flags))
        identities.append(f"{name} {number}")
        partition.append(f"{name} {int(number > count - count // 8)}")
    (directory / "list_attr_celeba.txt").write_text("\n".join(attributes) + "\n")
    (directory / "identity_CelebA.txt").write_text("\n".join(identities) + "\n")
    (directory / "list_eval_partition.txt").write_text("\n".join(partition) + "\n")
    return directory


def _write_people(folder: Path, prefix: str, seed: tuple[int, int], *, people: int, shots: int, size: int) -> None:
    for number in range(people):
        rng = np.random.default_rng([*seed, number])
        person = draw_person(rng)
        name = f"{prefix}{number:04d}"
        (folder / name).mkdir(parents=True, exist_ok=True)
        for shot in range(1, shots + 1):
            picture = draw_face(person, draw_shot(rng), size=size, rng=rng)
            picture.save(folder / name / f"{name}_{shot:04d}.png")


def _same_pair(people: npt.NDArray[np.str_], shots: int, rng: np.random.Generator) -> str:
    one, other = rng.choice(shots, 2, replace=False) + 1
    return f"{rng.choice(people)}\t{one}\t{other}"


def _other_pair(people: npt.NDArray[np.str_], shots: int, rng: np.random.Generator) -> str:
    one, other = rng.choice(people, 2, replace=False)
    return f"{one}\t{rng.integers(shots) + 1}\t{other}\t{rng.integers(shots) + 1}"
