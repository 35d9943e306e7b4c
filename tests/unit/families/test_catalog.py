"""What the catalog says without torch is what the recipes say."""

from __future__ import annotations

import pytest

from workers.families.catalog import CATALOG


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_the_catalog_knows_which_figure_is_better(name: str) -> None:
    entry = CATALOG[name]

    assert entry.metric_mode == entry.load_recipe().metric_mode
