#!/usr/bin/env bash
# Lays out the container's whole file system: the program, the libraries that it is linked with, the
# certificates of public authorities, and nothing else: no shell, no package manager.
#
#   deploy/rootfs.sh BINARY DIRECTORY [ARCHITECTURE]
#
# Libraries and certificates come from Debian's packages, which are fetched and unpacked, not
# installed: wants apt-get, dpkg and readelf (binutils), and no rights. For another architecture than
# this machine's: `dpkg --add-architecture arm64 && apt-get update` first. With DEBIAN_PACKAGES they
# are kept in that directory, and fetched only if it is empty.
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
    # as root, apt would want to become a user of its own who cannot write here
    (cd "$packages" && apt-get download -qq -o APT::Sandbox::User=root \
        "libc6:$architecture" "libgcc-s1:$architecture" ca-certificates)
fi
for package in "$packages"/*.deb; do
    dpkg -x "$package" "$work/unpacked"
done

rm -rf "$root"
# the last four are for the container's runtime, or a volume, to mount something on
mkdir -p "$root"/{usr/bin,etc/ssl/certs,etc/collibra-auth-proxy,run/secrets,var/lib/collibra-auth-proxy} \
    "$root"/{dev,proc,sys,tmp}
install -m 0755 "$binary" "$root/usr/bin/collibra-auth-proxy"

# the loader by the path that the program names, the libraries by the loader's own search path
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

# what update-ca-certificates makes of the package when it is installed
cat "$work"/unpacked/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"

printf 'root:x:0:0::/:/sbin/nologin\nnonroot:x:65532:65532::/:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
# /etc/hosts before the name servers, as everywhere
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
