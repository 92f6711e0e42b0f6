#!/usr/bin/env bash
# Builds the Debian package and prints its path.
#
#   deploy/debian/build.sh [--no-build]
#
# Needs cargo-deb (cargo install --locked cargo-deb), dpkg-shlibdeps (dpkg-dev), and what deploy/build.sh
# needs. --no-build uses the existing target/dist.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cargo deb --version >/dev/null 2>&1 || {
    echo 'cargo-deb is missing: cargo install --locked cargo-deb' >&2
    exit 1
}
command -v dpkg-shlibdeps >/dev/null || {
    echo 'dpkg-shlibdeps is missing: apt-get install dpkg-dev' >&2
    exit 1
}

name=collibra-auth-proxy
binary=target/dist/$name
extra=target/debian/extra

if [[ ${1:-} != --no-build ]]; then
    deploy/build.sh >/dev/null
elif [[ ! -x $binary ]]; then
    echo "$binary is missing: deploy/build.sh builds it" >&2
    exit 1
fi

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
# in Debian's form, which only names the version
cat >"$extra/changelog" <<END
$name ($(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)-1) stable; urgency=medium

  * See /usr/share/doc/$name/CHANGELOG.md.

 -- $(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)  $(date --rfc-email)
END
"$binary" completions bash >"$extra/$name.bash"
"$binary" completions zsh >"$extra/_$name"
"$binary" completions fish >"$extra/$name.fish"

cargo deb --no-build --quiet
