"""The process behind `trainyard up --background`: `python -m services.up`."""

from __future__ import annotations

import os
import sys

from rich.console import Console

from services.core.environment import read_settings
from services.core.errors import SettingsInvalid
from services.up import embedded
from services.up.display import LineDisplay
from services.up.lock import AlreadyRunning
from services.up.ports import PortTaken


def main() -> int:
    display = LineDisplay(Console())
    try:
        embedded.run(read_settings(), os.environ, display)
    except (AlreadyRunning, PortTaken, SettingsInvalid, embedded.StartFailed) as err:
        display.say(f"error: {err}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
