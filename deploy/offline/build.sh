#!/bin/bash
# build.sh: builds every image that compose.yaml names, on a machine that reaches only mirrors of Debian, PyPI and Go
# modules. Debian's own servers take the places of vendors' images, under the same names and settings. Grafana is not
# in Debian: its profile is left out. For root on Debian or Ubuntu, with debootstrap, a Docker engine and Go.
# An image that is already there is kept, and so the vendor's; the project's own are always built from what is here.
set -euo pipefail
cd "$(dirname "$0")/../.."
# What the host reaches by name, builds reach as well.
export TRAINYARD_BUILD_NETWORK=host
# shellcheck source=deploy/docker.sh
. deploy/docker.sh

base=${TRAINYARD_BASE:-debian:bookworm-slim}
golang=golang:1.26-bookworm
declare -A stand_ins=([postgres]=postgres:15 [redis]=redis:7 [prometheus]=prom/prometheus:v2.42.0)

is_missing() { ! "$docker" image inspect "$1" >/dev/null 2>&1; }

if is_missing "$base"; then
    began=$SECONDS
    deploy/offline/base/make.sh "$base"
    echo "built $base in $((SECONDS - began)) s"
fi
for name in "${!stand_ins[@]}"; do
    image=${stand_ins[$name]}
    if is_missing "$image"; then
        build "$image" --build-arg BASE="$base" "deploy/offline/$name"
    fi
done
if is_missing "$golang"; then
    build "$golang" --file deploy/offline/golang/Dockerfile --build-arg BASE="$base" "$(go env GOROOT)"
fi
deploy/images.sh
