"""`python -m workers`: one worker, configured by its environment."""

import sys

from services.core.environment import run_process
from workers.app import run

if __name__ == "__main__":
    sys.exit(run_process(run))
