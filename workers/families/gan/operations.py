"""What a served generator can be asked for: each operation turns a wish into rows and the facts of its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workers.families import latent
from workers.families.base import InstanceInvalid
from workers.families.gan.request import Model, Wish
from workers.families.gan.served import Row
from workers.families.instances import count, fraction, number, refuse_unknown
from workers.families.latent import LatentInvalid

_MAX_TERMS = 16
_MAX_ALPHA = 100.0


@dataclass(frozen=True, slots=True)
class Drawing:
    """Rows to draw. `lists` names the answer's lists of pictures, each of an even part of the rows."""

    rows: tuple[Row, ...]
    facts: Mapping[str, Any]
    lists: tuple[str, ...] = ("images",)
    sheet_columns: int | None = None
    """None: no sheet of all pictures."""


def plan(fields: Mapping[str, Any], model: Model) -> Drawing:
    """Return what to draw.

    Raises:
        InstanceInvalid: a field is unknown, missing or out of range; the message names it.
    """
    name = fields.get("op", "sample")
    if not isinstance(name, str) or name not in _OPERATIONS:
        raise InstanceInvalid(f"op must be one of {', '.join(_OPERATIONS)}, not {name!r:.50}")
    run, known = _OPERATIONS[name]
    refuse_unknown(fields, {"op", "sheet", "truncation", *_CLASS_FIELDS, *known})
    wish = Wish.of(fields, model)
    try:
        drawing = run(wish)
    except LatentInvalid as err:
        raise InstanceInvalid(f"{name}: {err}") from err
    if len(drawing.rows) > model.limit:
        text = f"{name} makes {len(drawing.rows)} samples; at most {model.limit} of this model fit one answer"
        raise InstanceInvalid(f"{text}: ask for fewer")
    return drawing


def _sample(wish: Wish) -> Drawing:
    seeds = wish.seeds()
    z = latent.draw(seeds, wish.model.layout.latent_size)
    return _plain(wish, z, {"seeds": seeds}, seeds=seeds)


def _decode(wish: Wish) -> Drawing:
    return _plain(wish, wish.points("z"), {})


def _walk(wish: Wish) -> Drawing:
    start, end = (wish.point(wish.fields.get(name), name) for name in ("from", "to"))
    steps, mode = wish.way()
    return _plain(wish, latent.walk(start, end, steps, mode), {"mode": mode}, has_sheet=True, columns=steps)


def _arithmetic(wish: Wish) -> Drawing:
    terms = wish.fields.get("terms")
    if not isinstance(terms, list | tuple) or not 1 <= len(terms) <= _MAX_TERMS:
        example = '[{"group": [1, 2, 3]}, {"sign": -1, "group": [4, 5, 6]}, {"group": [7, 8, 9]}]'
        raise InstanceInvalid(f"terms must be a list of 1 to {_MAX_TERMS} signed groups, such as {example}")
    z = latent.combine([_term(wish, term, f"terms[{k}]") for k, term in enumerate(terms)])
    if wish.flag("renorm", default=True):
        z = latent.renormalise(z)
    jitter = wish.number("jitter", 0.0, 0.0, 10.0)
    seeds = wish.seeds()
    if jitter == 0 and len(seeds) > 1:
        raise InstanceInvalid("n samples of one sum are equal without jitter; give jitter, such as 0.3")
    return _plain(wish, latent.jittered(z, seeds, jitter), {"jitter": jitter})


def _term(wish: Wish, term: Any, place: str) -> tuple[float, Tensor]:
    if not isinstance(term, Mapping) or len(term.keys() & {"group", "seed", "z"}) != 1:
        raise InstanceInvalid(f'{place} must be {{"sign": 1 or -1, "group": [...]}}, or have one seed or z')
    refuse_unknown(term, {"sign", "group", "seed", "z"})
    sign = term.get("sign", 1)
    if isinstance(sign, bool) or sign not in (1, -1):
        raise InstanceInvalid(f"{place}.sign must be 1 or -1, not {sign!r:.50}")
    if "group" in term:
        return float(sign), wish.group(term["group"], f"{place}.group")
    name = "seed" if "seed" in term else "z"
    return float(sign), wish.point(term[name], f"{place}.{name}")[None]


def _direction(wish: Wish) -> Drawing:
    z, facts = wish.bases()
    alphas = wish.fields.get("alpha", 1.0)
    many = alphas if isinstance(alphas, list | tuple) and alphas else [alphas]
    values = [number(one, "alpha", -_MAX_ALPHA, _MAX_ALPHA) for one in many]
    if len(z) * len(values) > wish.model.limit:
        raise InstanceInvalid(f"alpha: {len(z)} latents times {len(values)} are more than {wish.model.limit} samples")
    moved = latent.shifted(z, _way(wish), values)
    facts = {**facts, "alphas": values}
    return _plain(wish, moved, facts, has_sheet=len(values) > 1, columns=len(values))


def _way(wish: Wish) -> Tensor:
    fields, known = wish.fields, wish.model.directions
    if len(fields.keys() & {"name", "direction", "plus"}) != 1 or ("minus" in fields) != ("plus" in fields):
        raise InstanceInvalid("give one of: name, direction (a vector), or the groups plus and minus")
    if "direction" in fields:
        return wish.vector(fields["direction"], "direction")
    if "plus" in fields:
        return latent.direction(wish.group(fields["plus"], "plus"), wish.group(fields["minus"], "minus"))
    name = fields["name"]
    if not isinstance(name, str) or name not in known:
        raise InstanceInvalid(_unknown("name", "direction", name, known))
    return torch.tensor(known[name])


def _ablate(wish: Wish) -> Drawing:
    z, facts = wish.bases()
    layer, units = _chosen_units(wish)
    strength = fraction(wish.fields, "strength", 1.0)
    gains = torch.ones(dict(wish.model.layout.layers)[layer])
    gains[units] = 1.0 - strength
    labels, truncation = wish.labels(len(z)), wish.truncation
    before = [Row(one, label, truncation) for one, label in zip(z, labels, strict=True)]
    after = [Row(one, label, truncation, gains={layer: gains}) for one, label in zip(z, labels, strict=True)]
    return Drawing(
        rows=(*before, *after),
        facts={**facts, **_common(wish, z, labels), "layer": layer, "units": units, "strength": strength},
        lists=("before", "after"),
        sheet_columns=len(z) if wish.flag("sheet", default=True) else None,
    )


def _chosen_units(wish: Wish) -> tuple[str, list[int]]:
    fields, known = wish.fields, wish.model.units
    if "concept" in fields:
        name = fields["concept"]
        if {"layer", "units"} & fields.keys():
            raise InstanceInvalid("give concept, or layer and units, not both")
        if not isinstance(name, str) or name not in known:
            raise InstanceInvalid(_unknown("concept", "concept", name, known))
        return str(known[name]["layer"]), [int(unit) for unit in known[name]["units"]]
    sizes = dict(wish.model.layout.layers)
    layer, units = fields.get("layer"), fields.get("units")
    if not isinstance(layer, str) or layer not in sizes:
        shown = ", ".join(f"{name} ({size} units)" for name, size in sizes.items()) or "none"
        raise InstanceInvalid(f"layer must be a hidden layer, not {layer!r:.50}; this generator has {shown}")
    is_list = isinstance(units, list | tuple) and len(units) > 0
    if not is_list or not all(type(unit) is int and 0 <= unit < sizes[layer] for unit in units or ()):
        raise InstanceInvalid(f"units must be a list of numbers from 0 to {sizes[layer] - 1}, the units of {layer}")
    return layer, sorted(set(units or ()))


def _mix(wish: Wish) -> Drawing:
    styles = wish.model.layout.style_count
    if not styles:
        raise InstanceInvalid("mix needs a generator with a style for every layer, such as gan/stylegan2")
    cut = count(wish.fields, "cut", max(1, styles // 2), limit=styles - 1)
    coarse, fine = wish.points("coarse"), wish.points("fine")
    pairs = [(one, other) for one in coarse for other in fine]
    if len(pairs) > wish.model.limit:
        raise InstanceInvalid(f"coarse times fine are {len(pairs)} samples; at most {wish.model.limit} fit one answer")
    labels, truncation = wish.labels(len(pairs)), wish.truncation
    rows = [Row(one, label, truncation, fine=other, cut=cut) for (one, other), label in zip(pairs, labels, strict=True)]
    used = torch.stack([torch.stack(pair) for pair in pairs])
    facts = {"cut": cut, "style_count": styles, **_common(wish, used, labels)}
    has_sheet = wish.flag("sheet", default=len(rows) > 1)
    return Drawing(tuple(rows), facts, sheet_columns=len(fine) if has_sheet else None)


def _plain(
    wish: Wish,
    z: Tensor,
    facts: Mapping[str, Any],
    *,
    seeds: Sequence[int] = (),
    has_sheet: bool = False,
    columns: int = 8,
) -> Drawing:
    """Draw latents as they are."""
    labels, truncation = wish.labels(len(z), seeds=seeds), wish.truncation
    rows = tuple(Row(one, label, truncation) for one, label in zip(z, labels, strict=True))
    sheet = columns if wish.flag("sheet", default=has_sheet) else None
    return Drawing(rows, {**facts, **_common(wish, z, labels)}, sheet_columns=sheet)


def _common(wish: Wish, z: Tensor, labels: Sequence[int | None]) -> dict[str, Any]:
    """Return what every operation answers. `z` has a latent for each sample (N, D), or several (N, K, D)."""
    found = _classes(wish, labels)
    if wish.truncation != 1.0:
        found["truncation"] = wish.truncation
    if z.numel() <= latent.MAX_ECHO:
        found["z"] = [
            latent.exact_numbers(one) if one.ndim == 1 else [latent.exact_numbers(row) for row in one] for one in z
        ]
    return found


def _classes(wish: Wish, labels: Sequence[int | None]) -> dict[str, Any]:
    names = [wish.model.classes[label] for label in labels if label is not None]
    return {"labels": names} if names else {}


def _unknown(place: str, what: str, name: Any, known: Mapping[str, Any]) -> str:
    shown = ", ".join(sorted(known)) or "none: train gan/find_units from this model to find some"
    return f"{place}: unknown {what} {name!r:.50}; this model has {shown}"


_CLASS_FIELDS = ("class", "labels")
_BASE = ("seed", "n", "z")
_OPERATIONS: dict[str, tuple[Callable[[Wish], Drawing], tuple[str, ...]]] = {
    "sample": (_sample, ("n", "seed")),
    "decode": (_decode, ("z",)),
    "walk": (_walk, ("from", "to", "steps", "mode")),
    "arithmetic": (_arithmetic, ("terms", "renorm", "jitter", "n", "seed")),
    "direction": (_direction, (*_BASE, "name", "direction", "plus", "minus", "alpha")),
    "ablate": (_ablate, (*_BASE, "layer", "units", "concept", "strength")),
    "mix": (_mix, ("coarse", "fine", "cut")),
}
