from __future__ import annotations

from alembic.config import Config
from alembic.script import ScriptDirectory

from services.db import migrations


def test_the_head_this_code_expects_is_the_only_head_of_the_scripts() -> None:
    config = Config()
    config.set_main_option("script_location", "services.db:migrations")
    config.set_main_option("path_separator", "os")

    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]
