#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Run by bench-root.service once both disks have their names.
set -e
. /bench.conf
open_verity() { # NAME SERIAL OFFSET ROOT_HASH
    node=/dev/disk/by-id/virtio-$2
    veritysetup open --hash-offset="$3" "$node" "$1" "$node" "$4"
}
set -- $DISK_root
open_verity root "$1" "$2" "$3"
mkdir -p /run/verified /run/above
mount -r -t "$4" /dev/mapper/root /run/verified
mount -t tmpfs -o mode=755 above /run/above
mkdir /run/above/upper /run/above/work
mount -t overlay -o lowerdir=/run/verified,upperdir=/run/above/upper,workdir=/run/above/work overlay /sysroot
if [ -n "$DISK_data" ]; then
    set -- $DISK_data
    open_verity data "$1" "$2" "$3"
    mount -r -t "$4" /dev/mapper/data "/sysroot$5"
fi
if [ -n "$LUKS_data" ]; then
    set -- $LUKS_data
    cryptsetup open --type luks2 --key-file "$2" "/dev/disk/by-id/virtio-$1" data
    mount -t ext4 -o nosuid,nodev,noexec /dev/mapper/data "/sysroot$3"
fi
