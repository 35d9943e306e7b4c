"""`python -m workers`: one worker, configured by its environment."""

import sys

from services.core.settings import Settings
from workers.app import run

if __name__ == "__main__":
    sys.exit(run(Settings()))
