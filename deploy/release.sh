#!/usr/bin/env bash
# The steps of a release, as .github/workflows/release.yml runs them; each also runs by hand.
#
#   deploy/release.sh version TAG              checks that everything names the version of TAG
#   deploy/release.sh build VERSION ARCH [PROGRAM]
#                                              program, Debian package and SBOM in target/release-files;
#                                              PROGRAM is one that is built already
#   deploy/release.sh chart IMAGE              prints a copy of the chart that names IMAGE, without a tag
#   deploy/release.sh notes VERSION            SHA256SUMS there, and target/release-notes.md
#
# `build` needs cargo-auditable (unless there is a PROGRAM), cargo-cyclonedx and cargo-deb (cargo install
# --locked NAME). deploy/set-owner.sh names the owner first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly name=collibra-auth-proxy
readonly files=target/release-files

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# The changelog's section of a version, without its heading and the links at the end.
section() {
    awk -v heading="## [$1]" '
        /^## \[/ { inside = index($0, heading) == 1; next }
        inside && !/^\[.*\]: https:/
    ' CHANGELOG.md
}

version() {
    local version=${1#v} chart
    [[ $1 == v* ]] || die "$1 is no release tag: it should be like v0.1.0"
    grep -qx "version = \"$version\"" Cargo.toml || die "Cargo.toml has another version than $1"
    chart=deploy/helm/$name/Chart.yaml
    grep -qx "version: $version" "$chart" || die "$chart: version is not $version"
    grep -qx "appVersion: $version" "$chart" || die "$chart: appVersion is not $version"
    [[ -n $(section "$version") ]] || die "CHANGELOG.md has no section ## [$version]"
    echo "version=$version"
}

build() {
    local version=$1 architecture=$2 program=${3:-} built=target/dist/$name command
    local needed=(cyclonedx deb)
    [[ -n $program ]] || needed+=(auditable)
    for command in "${needed[@]}"; do
        cargo "$command" --help >/dev/null 2>&1 ||
            die "cargo-$command is missing: cargo install --locked cargo-$command"
    done
    if [[ -n $program ]]; then
        install -D -m 0755 "$program" "$built"
    else
        built=$(CARGO_BUILD='cargo auditable build --locked' deploy/build.sh)
    fi
    rm -rf "$files"
    mkdir -p "$files"
    local folder=$name-$version-linux-$architecture
    rm -rf "target/$folder"
    mkdir -p "target/$folder"
    cp --recursive "$built" LICENSE ./*.md docs config "target/$folder/"
    tar --create --gzip --owner 0 --group 0 --directory target --file "$files/$folder.tar.gz" "$folder"
    cp "$(deploy/debian/build.sh --no-build)" "$files/"
    cargo cyclonedx --format json --spec-version 1.5 --override-filename "$name-$version-$architecture.cdx"
    mv "$name-$version-$architecture.cdx.json" "$files/"
}

chart() {
    local image=$1 chart=target/chart/$name
    rm -rf "$chart"
    mkdir -p "${chart%/*}"
    cp --recursive "deploy/helm/$name" "$chart"
    sed -i "s|^  repository: $name\$|  repository: $image|" "$chart/values.yaml"
    grep -qx "  repository: $image" "$chart/values.yaml" || die 'values.yaml names another image'
    echo "$chart"
}

notes() {
    local version=$1
    [[ -n $(ls "$files") ]] || die "$files is empty: run build first"
    (cd "$files" && rm -f SHA256SUMS && sha256sum -- * >SHA256SUMS.new && mv SHA256SUMS.new SHA256SUMS)
    section "$version" >target/release-notes.md
    [[ -s target/release-notes.md ]] || die "CHANGELOG.md has no section ## [$version]"
}

case ${1:-} in
    version) version "${2:?a tag}" ;;
    build) build "${2:?a version}" "${3:?an architecture, like amd64}" "${4:-}" ;;
    chart) chart "${2:?an image, like registry.example/collibra-auth-proxy}" ;;
    notes) notes "${2:?a version}" ;;
    *)
        sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
