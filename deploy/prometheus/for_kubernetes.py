"""Writes the rules of this folder as the resource that the Prometheus operator reads; a test compares the two."""

from __future__ import annotations

import textwrap
from pathlib import Path

HERE = Path(__file__).parent
RULES = HERE / "rules" / "trainyard.yml"
TARGET = HERE.parents[1] / "k8s" / "components" / "monitoring" / "rules.yaml"
HEADER = """# Made by `make rules` from deploy/prometheus/rules; change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: trainyard
spec:
"""


def render() -> str:
    """Return the manifest: the rules, indented, below a header."""
    _, key, groups = RULES.read_text().partition("groups:\n")
    return HEADER + textwrap.indent(key + groups, "  ")


if __name__ == "__main__":
    TARGET.write_text(render())
