#!/usr/bin/env bash
# Boots this machine's systemd as the first process of a container: its own processes, mounts, network
# and control groups, the machine's /usr with PROGRAM and the package's units in it, an /etc and a /run
# of its own. Wants to be root. Ends with the container, which ends with it.
#
#   tests/systemd/boot.sh GROUP PROGRAM
#
# GROUP is the name of the control group that it makes and lives in.
set -euo pipefail

if [[ ${1:-} != --within ]]; then
    group=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)/$1
    mkdir "$group"
    echo $$ >"$group/cgroup.procs"
    exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child -- "$0" --within "$2"
fi

program=$2
deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../deploy" && pwd)
mount --make-rprivate /
root=/run/container
mkdir -p "$root"
mount -t tmpfs none "$root"
cd "$root"

mkdir -p etc run tmp var proc sys dev root home upper work usr
mount -t overlay -o lowerdir=/usr,upperdir="$root/upper",workdir="$root/work" none usr
for link in bin sbin lib lib32 lib64 libx32; do
    [[ ! -L /$link ]] || cp -a "/$link" .
done
cp -a /etc/. etc
# what the machine forbids its packages holds for the machine
rm -rf etc/systemd etc/machine-id usr/sbin/policy-rc.d
echo 0123456789abcdef0123456789abcdef >etc/machine-id

# as the package has it (Cargo.toml)
touch usr/bin/collibra-auth-proxy
mount --bind "$program" usr/bin/collibra-auth-proxy
install -m 644 "$deploy"/systemd/*.service "$deploy"/systemd/*.socket usr/lib/systemd/system/
install -m 644 "$deploy/systemd/collibra-auth-proxy.sysusers" usr/lib/sysusers.d/collibra-auth-proxy.conf
install -m 644 "$deploy/systemd/collibra-auth-proxy.tmpfiles" usr/lib/tmpfiles.d/collibra-auth-proxy.conf
install -D -m 644 -t etc/collibra-auth-proxy "$deploy/systemd/collibra-auth-proxy.toml"
install -D -m 755 -t usr/lib/package "$deploy"/debian/p*

mount -t proc none proc
mount -t sysfs none sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs none dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
mkdir dev/pts dev/shm dev/mqueue dev/hugepages
mount -t devpts -o newinstance,ptmxmode=666 none dev/pts
mount -t tmpfs none run
mount -t tmpfs none tmp

mkdir .old
pivot_root . .old
umount -l .old
container=test exec /lib/systemd/systemd --system --unit=basic.target --log-target=null
