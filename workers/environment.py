"""What a trainer sees of the worker's environment: an allow-list, so that no credential can leak by a new name."""

from __future__ import annotations

from collections.abc import Mapping

_NAMES = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "SHELL", "TERM", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CACHE_HOME", "CC", "CXX", "CUDA_HOME", "CUDA_PATH",
})  # fmt: skip
_PREFIXES = (
    "LC_", "PYTHON", "OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "GLOO_",
    "TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_",
)  # fmt: skip
# A thread of a network waits for its siblings by spinning, by default so long (milliseconds) that it holds the core
# which a sibling would need: on two cores training went 1.4 times slower than with this beside a busy loop, and several
# times slower beside another trainer. Alone on the cores no difference was seen.
_SPINS = "3000"
_SECRET_WORDS = ("KEY", "SECRET", "TOKEN", "PASS", "CREDENTIAL")


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that trainers may see, with their fixed settings."""
    allowed = {name: value for name, value in environment.items() if is_allowed(name)}
    # OpenBLAS starts its threads when it is loaded, and a process with threads cannot be forked safely.
    fixed = {"OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    waiting = {} if "OMP_WAIT_POLICY" in allowed else {"GOMP_SPINCOUNT": _SPINS}
    return waiting | allowed | fixed


def is_allowed(name: str) -> bool:
    if any(word in name.upper() for word in _SECRET_WORDS):
        return False
    return name in _NAMES or name.startswith(_PREFIXES)
