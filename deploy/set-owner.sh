#!/usr/bin/env bash
# Sets the owner of the repository everywhere: in the links of alerts to their runbooks, in the guides,
# in the chart and in the image's labels. `repository` in Cargo.toml says who it is now.
#
#   deploy/set-owner.sh NAME
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly name=collibra-auth-proxy
if (($# != 1)) || [[ ! $1 =~ ^[A-Za-z0-9][A-Za-z0-9-]*$ ]]; then
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
now=$(sed -n "s|^repository = \"https://github.com/\(.*\)/$name\"|\1|p" Cargo.toml)
[[ -n $now ]] || { echo 'Cargo.toml has no repository at github.com' >&2; exit 1; }
expression="s#(github\.com/|ghcr\.io/|--repo )$now/((charts/)?$name)\b#\1$1/\2#g
    s#\b$now(@users\.noreply\.github\.com)#$1\1#g"
grep --recursive --files-with-matches --binary-files=without-match --null --extended-regexp \
    --exclude-dir target --exclude-dir .git --exclude-dir vendor "\b$now(@|/(charts/)?$name)" . |
    xargs --null sed --in-place --regexp-extended "$expression"
sed --in-place "s/@$now\b/@$1/" .github/CODEOWNERS
