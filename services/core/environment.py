"""Reads the settings of a process, and says in one line what is wrong with one that cannot be used.

Retrying never helps such a process: it ends with an exit code of its own, by which its supervisor knows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from services.core.errors import SettingsInvalid
from services.core.settings import Settings

UNUSABLE_EXIT = os.EX_CONFIG
"""The exit code of a process that cannot work with its settings."""

_WANTED = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
    "literal_error": "{expected}",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
}


def read_settings(**values: Any) -> Settings:
    """Return the settings of the environment, with `values` in place of some.

    Raises:
        SettingsInvalid: one of them is not what it must be.
    """
    try:
        return Settings(**values)
    except ValidationError as err:
        # Inputs are shown: secrets are taken as they are and never end up here.
        faults = [_describe(fault) for fault in err.errors()]
        raise SettingsInvalid("; ".join(faults)) from err
    except SettingsError as err:
        raise SettingsInvalid('TRAINYARD_TIMINGS: must be a JSON object such as {"heartbeat": 5}') from err


def run_process(main: Callable[[Settings], int]) -> int:
    """Run the main function of a process with its settings and return its exit code.

    A setting that cannot be used is the last line that the process writes.
    """
    try:
        return main(read_settings())
    except SettingsInvalid as err:
        sys.stderr.write(f"error: {err}\n")
        return UNUSABLE_EXIT


def _describe(fault: Mapping[str, Any]) -> str:
    variable = "TRAINYARD_" + "__".join(str(part) for part in fault["loc"]).upper()
    context = fault.get("ctx", {})
    if fault["type"] == "value_error":
        return f"{variable}: {context['error']}"
    if fault["type"] == "extra_forbidden":
        return f"{variable}: there is no such setting"
    wanted = _WANTED.get(fault["type"])
    said = f"must be {wanted.format(**context)}" if wanted else fault["msg"]
    return f"{variable}: {said}, not {str(fault['input'])!r}"
