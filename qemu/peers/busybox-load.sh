#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cryptsetup's own authenticated volumes in a guest, for the throughput part of the bench: formats,
# opens and loads the disk with serial "data", once for each line of bench.loads:
# "NAME FORMAT-WORDS...", where NAME ends in -direct for a volume without a journal.
set -e
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t devtmpfs -o nosuid,noexec dev /dev
mount -t proc -o nosuid,noexec,nodev proc /proc
mount -t sysfs -o nosuid,noexec,nodev sys /sys
mount -t tmpfs -o nosuid,nodev,mode=755 run /run
. /bench.conf
for module in $MODULES; do insmod "$module"; done
tries=0
while [ ! -e /dev/vda ] && [ $tries -lt 1000 ]; do tries=$((tries + 1)); usleep 10000; done
while read -r name words; do
    journal=
    case $name in *-direct) journal=--integrity-no-journal ;; esac
    timed "format-$name" cryptsetup luksFormat --batch-mode --type luks2 --key-file /bench.key \
        --sector-size 4096 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $words /dev/vda
    cryptsetup open --type luks2 --key-file /bench.key $journal /dev/vda data
    /sbin/mke2fs -q -F -t ext4 -b 4096 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard /dev/mapper/data
    mkdir -p "/$name"
    mount -t ext4 /dev/mapper/data "/$name"
    volume_load "/$name"
    umount "/$name"
    cryptsetup close data
done < /bench.loads
echo "bench-loads done"
sync
poweroff -f
