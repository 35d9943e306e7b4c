# Sourced: $docker is a docker client that builds with BuildKit, and build IMAGE ARGUMENT... builds one image with it.

# Clients before 23 have BuildKit inside; later ones need the plugin buildx.
find_docker() {
    local candidate major
    while read -r candidate; do
        major=$("$candidate" version --format '{{.Client.Version}}' 2>/dev/null | cut -d. -f1)
        if [ "${major:-99}" -lt 23 ] || "$candidate" buildx version >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done < <(type -ap docker)
    echo 'no docker client with BuildKit: install docker-buildx, or docker.io of Debian 12' >&2
    return 1
}

docker=$(find_docker)
export DOCKER_BUILDKIT=1

build() {
    local image=$1 began=$SECONDS
    shift
    "$docker" build --progress plain --network "${TRAINYARD_BUILD_NETWORK:-default}" --tag "$image" "$@"
    echo "built $image in $((SECONDS - began)) s"
}
