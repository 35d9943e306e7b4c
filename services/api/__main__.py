"""`python -m services.api`: serve until SIGTERM, then drain."""

from __future__ import annotations

from services.core.loading import loading


def main() -> int:
    with loading():
        from services.api.serve import serve
    return serve()


if __name__ == "__main__":
    raise SystemExit(main())
