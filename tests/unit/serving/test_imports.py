"""What processes import: no handler and no trainer loads the compiler, which still comes whole once it is asked for."""

from __future__ import annotations

import subprocess
import sys

_HANDLERS = """
import sys
from workers.families.catalog import CATALOG
for entry in CATALOG.values():
    entry.load_handler()
import workers.serving.bundle
heavy = ("torch._dynamo.utils", "torch._inductor", "sympy", "timm", "torchvision.transforms.v2")
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

_TRAINERS = """
import sys
import workers
import torch
from torch.utils.checkpoint import checkpoint
from workers.warm import preload
preload()
heavy = ("torch._dynamo.utils", "torch._inductor", "sympy", "timm", "torchmetrics", "scipy")
print([name for name in heavy if name in sys.modules])

from workers.engine.process import process_settings
settings = process_settings(threads=1, deterministic=True)
settings.__enter__()
print(torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
network = torch.nn.Linear(2, 1)
for kind in (torch.optim.SGD, torch.optim.AdamW):
    optimizer = kind(network.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
print([name for name in heavy if name in sys.modules])

import torch._dynamo.utils
import torch._inductor.config
print(torch._inductor.config.deterministic)
settings.__exit__(None, None, None)
print(torch._inductor.config.deterministic, torch.are_deterministic_algorithms_enabled())
from torch._dynamo import exc, utils
print(torch._dynamo.utils is utils, exc.counters is utils.counters, utils.__spec__.origin.endswith("utils.py"))

network = torch.compile(network, backend="eager", fullgraph=True)
optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
loss = checkpoint(network, torch.ones(1, 2), use_reentrant=False).sum()
loss.backward()
optimizer.step()
print(torch.export.export(torch.nn.Linear(2, 1), (torch.ones(3, 2),)).module()(torch.ones(3, 2)).shape)
"""


def test_handlers_come_without_the_compiler_which_still_comes_when_asked() -> None:
    assert _said(_HANDLERS) == ["[]", "5.0", "True", "torch._dynamo.utils"]


def test_trainers_step_without_the_compiler_which_still_compiles_and_exports() -> None:
    assert _said(_TRAINERS) == [
        "[]",
        "True False",
        "[]",
        "True",
        "False False",
        "True True True",
        "torch.Size([3, 1])",
    ]


def _said(code: str) -> list[str]:
    # To a pipe: what libraries print when the interpreter ends goes to the other one.
    code += "\nimport os\nsys.stdout.flush()\nos._exit(0)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "warm_parent_ready" not in line]
