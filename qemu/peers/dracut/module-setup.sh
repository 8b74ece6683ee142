#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# dracut module of the bench: one systemd unit that opens both disks as soon as
# udev has named them. Less than dracut's own root handling, so it flatters dracut.
check() { return 0; }
depends() { echo systemd-initrd dm; }
installkernel() { instmods virtio_pci virtio_blk dm-verity overlay erofs $(cat /etc/bench.modules); }
install() {
    inst_multiple veritysetup mount mkdir sh
    inst_simple /etc/bench.conf /bench.conf
    [ ! -e /etc/bench.key ] || { inst_multiple cryptsetup; inst_simple /etc/bench.key /bench.key; }
    inst_script "$moddir/bench-root.sh" /sbin/bench-root
    inst_simple "$moddir/bench-root.service" "$systemdsystemunitdir/bench-root.service"
    $SYSTEMCTL -q --root "$initdir" add-requires initrd-root-fs.target bench-root.service
}
