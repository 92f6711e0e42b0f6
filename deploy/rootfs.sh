#!/usr/bin/env bash
# Creates the container's file system: the program, its shared libraries, the certificates of public
# authorities, and nothing else: no shell, no package manager.
#
#   deploy/rootfs.sh BINARY DIRECTORY [ARCHITECTURE]
#
# Libraries and certificates come from Debian packages, which are downloaded and unpacked, not
# installed. Needs apt-get, dpkg and readelf (binutils), but not root. For another architecture run
# `dpkg --add-architecture arm64 && apt-get update` first. DEBIAN_PACKAGES names a directory that
# keeps the packages; they are downloaded only if it is empty.
set -euo pipefail

if (($# < 2)); then
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
binary=$1 root=$2 architecture=${3:-$(dpkg --print-architecture)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
packages=$(realpath -m "${DEBIAN_PACKAGES:-$work/packages}")
mkdir -p "$packages" "$work/unpacked"
if [[ -z $(ls "$packages") ]]; then
    # as root, apt would switch to its own user, who cannot write here
    (cd "$packages" && apt-get download -qq -o APT::Sandbox::User=root \
        "libc6:$architecture" "libgcc-s1:$architecture" ca-certificates)
fi
for package in "$packages"/*.deb; do
    dpkg -x "$package" "$work/unpacked"
done

rm -rf "$root"
# the last four are mount points for the container's runtime or a volume
mkdir -p "$root"/{usr/bin,etc/ssl/certs,etc/collibra-auth-proxy,run/secrets,var/lib/collibra-auth-proxy} \
    "$root"/{dev,proc,sys,tmp}
install -m 0755 "$binary" "$root/usr/bin/collibra-auth-proxy"

# the loader at the path that the program names, the libraries in the loader's search path
loader=$(readelf -lW "$binary" | sed -n 's/.*program interpreter: \(.*\)]/\1/p')
readelf -dW "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)]/\1/p' | while read -r library; do
    found=$(find "$work/unpacked" -name "$library" | head -n 1)
    [[ -n $found ]] || { echo "no package has $library" >&2; exit 1; }
    [[ $library != "${loader##*/}" ]] || continue
    # the path as packaged, in /usr/lib or in /lib
    target=$root${found#"$work/unpacked"}
    install -D -m 0644 "$(readlink -f "$found")" "$target"
done
found=$(find "$work/unpacked" -name "${loader##*/}" -type f | head -n 1)
install -D -m 0755 "$found" "$root$loader"

# as update-ca-certificates does when the package is installed
cat "$work"/unpacked/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"

printf 'root:x:0:0::/:/sbin/nologin\nnonroot:x:65532:65532::/:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
# /etc/hosts before DNS, as usual
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
