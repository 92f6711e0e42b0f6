#!/usr/bin/env bash
# Builds the Debian package and prints its path.
#
#   deploy/debian/build.sh [--no-build]
#
# Needs cargo-deb (cargo install --locked cargo-deb). --no-build uses the existing target/dist.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cargo deb --version >/dev/null 2>&1 || {
    echo 'cargo-deb is missing: cargo install --locked cargo-deb' >&2
    exit 1
}

name=collibra-auth-proxy
binary=target/dist/$name
extra=target/debian/extra

[[ ${1:-} == --no-build ]] || deploy/build.sh >/dev/null

# the subcommands that the help of a command lists
commands() {
    "$binary" "$@" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z-]\{1,\}\).*/\1/p' | grep -vx help || true
}

# a page for a command, and one for each subcommand
pages() {
    local words=("$@") page command
    page=$(IFS=-; echo "${words[*]:+-${words[*]}}")
    "$binary" man "${words[@]}" >"$extra/man/$name$page.1"
    for command in $(commands "${words[@]}"); do
        pages "${words[@]}" "$command"
    done
}

rm -rf "$extra"
mkdir -p "$extra/man"
pages
"$binary" completions bash >"$extra/$name.bash"
"$binary" completions zsh >"$extra/_$name"
"$binary" completions fish >"$extra/$name.fish"

cargo deb --no-build --quiet
