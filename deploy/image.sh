#!/usr/bin/env bash
# Builds the container image with buildah, without a daemon or a foreign base image: the same image as
# deploy/Dockerfile, from this Debian machine's packages.
#
#   deploy/image.sh "$(deploy/build.sh)" collibra-auth-proxy:0.1.0 [ARCHITECTURE]
#
# Without an overlay file system set STORAGE_DRIVER=vfs. Without root run it in `buildah unshare`.
set -euo pipefail

if (($# < 2)); then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
command -v buildah >/dev/null || { echo 'buildah is missing: apt-get install buildah' >&2; exit 1; }
here=$(dirname "${BASH_SOURCE[0]}")
binary=$1 name=$2 architecture=${3:-$(dpkg --print-architecture)}
of_cargo() {
    sed -n "s/^$1 = \"\(.*\)\"/\1/p" "$here/../Cargo.toml" | head -n 1
}

root=$(mktemp -d)
container=''
clean() {
    [[ -z $container ]] || buildah rm "$container" >/dev/null
    rm -rf "$root"
}
trap clean EXIT

"$here/rootfs.sh" "$binary" "$root" "$architecture"
chmod 0755 "$root"

# OCI's own format has no health check
container=$(buildah from --format docker --arch "$architecture" scratch)
buildah copy --quiet --chown 0:0 "$container" "$root" / >/dev/null
# the same as in the Dockerfile; a test compares them
buildah config \
    --user 65532:65532 \
    --workingdir / \
    --entrypoint '["/usr/bin/collibra-auth-proxy"]' \
    --cmd serve \
    --env COLLIBRA_AUTH_PROXY_LISTEN=0.0.0.0:8080 \
    --env COLLIBRA_AUTH_PROXY_LISTEN_ADMIN=0.0.0.0:9902 \
    --env COLLIBRA_AUTH_PROXY_ALLOW_UNAUTHENTICATED=true \
    --env container=oci \
    --port 8080 --port 9902 \
    --healthcheck-interval 10s --healthcheck-timeout 5s --healthcheck-start-period 30s \
    --healthcheck 'CMD /usr/bin/collibra-auth-proxy wait --timeout 3s' \
    --stop-signal SIGTERM \
    --label org.opencontainers.image.title=collibra-auth-proxy \
    --label "org.opencontainers.image.description=One Collibra access token for all your programs" \
    --label org.opencontainers.image.licenses=Apache-2.0 \
    --label "org.opencontainers.image.source=$(of_cargo repository)" \
    --label "org.opencontainers.image.version=$(of_cargo version)" \
    --label "org.opencontainers.image.revision=$(git -C "$here" rev-parse HEAD 2>/dev/null || true)" \
    "$container"
buildah commit --quiet --format docker "$container" "$name"
