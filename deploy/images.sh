#!/bin/bash
# images.sh [NAME...]: builds the project's images (api, worker, torchserve, minio; default: all) and lists what is in
# them under out/images. TRAINYARD_TAG names them, TRAINYARD_BASE is what they start from. Needs BuildKit.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/docker.sh
. deploy/docker.sh

base=${TRAINYARD_BASE:-debian:bookworm-slim}
tag=${TRAINYARD_TAG:-0.1.0}
[ $# -gt 0 ] || set -- api worker torchserve minio

contents() {
    mkdir -p out/images
    {
        echo "# $1: $("$docker" image inspect --format '{{.Size}}' "$1") bytes"
        "$docker" run --rm --network none --entrypoint sh "$1" -c '
            echo "# Debian packages"; dpkg-query --show
            if [ -d /opt/trainyard ]; then
                echo "# Python packages"
                python -c "import importlib.metadata as m
for name, version in sorted({(d.name.lower(), d.version) for d in m.distributions()}): print(name, version)"
            fi'
    } >"out/images/$2.txt"
}

for name in "$@"; do
    image=trainyard/$name:$tag
    case $name in
    minio) build "$image" --file deploy/minio/Dockerfile --build-arg BASE="$base" . ;;
    *) build "$image" --file deploy/trainyard/Dockerfile --target "$name" --build-arg BASE="$base" . ;;
    esac
    contents "$image" "$name"
done
