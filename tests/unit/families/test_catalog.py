"""What the catalog says without torch is what the recipes say."""

from __future__ import annotations

import pytest

from workers.families.catalog import CATALOG
from workers.families.face.handler import FaceHandler


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_the_catalog_knows_which_figure_is_better(name: str) -> None:
    entry = CATALOG[name]

    assert entry.metric_mode == entry.load_recipe().metric_mode


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_the_catalog_names_the_figure_that_picks_the_best_checkpoint(name: str) -> None:
    metric = CATALOG[name].load_recipe().metric.partition("@")[0]

    # The points of gan/vanilla are judged by another figure than its images.
    assert CATALOG[name].metric == ("" if name == "gan/vanilla" else metric)


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_the_catalog_knows_who_learns_classes_of_images_and_who_embeds(name: str) -> None:
    entry = CATALOG[name]

    assert entry.needs_labels == getattr(entry.load_recipe(), "is_conditional", False)
    assert entry.serves_embeddings == issubclass(entry.load_handler(), FaceHandler)
