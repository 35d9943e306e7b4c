"""Generate the wire code under proto/gen/python from proto/; `--check` only says whether it is up to date.

Proto paths equal import paths, so the generated imports are right as they come.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
TARGET = ROOT / "gen" / "python"
PACKAGE = "trainyard"


def generate(target: Path) -> None:
    """Write the generated package into `target`, which exists and is empty."""
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(f"{PACKAGE}/**/*.proto"))
    bundled = Path(protoc.__file__).parent / "_proto"
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python", "mypy_grpc")]
    plugin = Path(sys.executable).parent / "protoc-gen-mypy_grpc"
    arguments = ["protoc", f"-I{ROOT}", f"-I{bundled}", f"--plugin=protoc-gen-mypy_grpc={plugin}", *outputs, *sources]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    for directory in sorted({path.parent for path in target.rglob("*_pb2.py")} | {target / PACKAGE}):
        (directory / "__init__.py").write_text('"""Generated from proto/ by proto/generate.py; do not edit."""\n')
        (directory / "py.typed").touch()


def files(root: Path) -> dict[str, bytes]:
    """Return every generated file below `root` by its relative path."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix in {".py", ".pyi", ".typed"}
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where files differ")
    is_check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh, committed = files(Path(scratch)), files(TARGET)
        drift = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
        if is_check:
            for name in drift:
                print(f"out of date: {name}")
            if drift:
                print(f"run proto/generate.py (grpcio-tools {version('grpcio-tools')})")
            return 1 if drift else 0
        shutil.rmtree(TARGET / PACKAGE, ignore_errors=True)
        TARGET.mkdir(parents=True, exist_ok=True)
        shutil.copytree(Path(scratch) / PACKAGE, TARGET / PACKAGE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
