#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The peer of the boot bench that a careful person writes by hand: busybox and
# veritysetup. Beside it the image holds bench.conf: MODULES (paths for insmod,
# or names for modprobe), LOAD, and one DISK_<name> per disk:
# "SERIAL HASH_OFFSET_BYTES ROOT_HASH FSTYPE MOUNTPOINT", and perhaps LUKS_data, "SERIAL KEY_FILE
# MOUNTPOINT" of a LUKS2 volume, with TIMED, a program that times the opening.
set -e
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t devtmpfs -o nosuid,noexec dev /dev
mount -t proc -o nosuid,noexec,nodev proc /proc
mount -t sysfs -o nosuid,noexec,nodev sys /sys
mount -t tmpfs -o nosuid,nodev,mode=755 run /run
. /bench.conf
for module in $MODULES; do $LOAD "$module"; done

find_disk() { # by serial, ten seconds at most; sets NODE
    tries=0
    while [ $tries -lt 1000 ]; do
        for file in /sys/block/vd*/serial; do
            [ -e "$file" ] || continue
            read -r seen < "$file" || true
            if [ "$seen" = "$1" ]; then NODE=${file#/sys/block/}; NODE=/dev/${NODE%/serial}; return 0; fi
        done
        tries=$((tries + 1)); usleep 10000
    done
    echo "no disk with serial $1"; exit 1
}
open_verity() { # NAME SERIAL OFFSET ROOT_HASH
    find_disk "$2"
    veritysetup open --hash-offset="$3" "$NODE" "$1" "$NODE" "$4"
}
set -- $DISK_root
open_verity root "$1" "$2" "$3"
mkdir -p /verified /above /next
mount -r -t "$4" /dev/mapper/root /verified
mount -t tmpfs -o mode=755 above /above
mkdir /above/upper /above/work
mount -t overlay -o lowerdir=/verified,upperdir=/above/upper,workdir=/above/work overlay /next
if [ -n "$DISK_data" ]; then
    set -- $DISK_data
    open_verity data "$1" "$2" "$3"
    mount -r -t "$4" /dev/mapper/data "/next$5"
fi
if [ -n "$LUKS_data" ]; then
    set -- $LUKS_data
    find_disk "$1"
    $TIMED cryptsetup open --type luks2 --key-file "$2" "$NODE" data
    mount -t ext4 -o nosuid,nodev,noexec /dev/mapper/data "/next$3"
fi
for dir in dev proc sys run; do mount -o move /$dir /next/$dir; done
exec switch_root /next /sbin/init
