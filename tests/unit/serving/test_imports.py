"""What a serving process imports: every handler, and neither the compiler nor what only training needs."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import sys
from workers.families.catalog import CATALOG
for entry in CATALOG.values():
    entry.load_handler()
import workers.serving.bundle
heavy = ("torch._dynamo", "torch._inductor", "sympy", "timm", "torchvision.transforms.v2")
print([name for name in heavy if name in sys.modules])
import torch
from torchvision.ops import roi_align
image = torch.arange(16.0).reshape(1, 1, 4, 4)
print(roi_align(image, [torch.tensor([[0.0, 0.0, 2.0, 2.0]])], 1).item())
import torch._dynamo.utils
import torchvision.ops.roi_align
print(sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu") in (True, False))
print(torch._dynamo.utils.is_compile_supported.__module__)
"""


def test_handlers_come_without_the_compiler_which_still_comes_when_asked() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "5.0", "True", "torch._dynamo.utils"]
