#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts an IGVM file of `troth igvm build` with SEV-SNP: QEMU 10.1 or later built with
# igvm, KVM with SNP, a processor with SNP. Nobody has done this yet: docs/igvm.md says
# what to look at and what to report.
#
#   examples/igvm-launch.sh BUNDLE FILE.igvm
#
# By environment variables:
#   VCPUS=1 MEMORY=1G      as given to `troth igvm build`
#   CPU=EPYC-v4            as given to `troth measure igvm --vcpu-type`
#   POLICY=0x30000         as given to `troth igvm build --policy`
#   INSTANCE=              instance configuration: a disk, and its SHA-256 as HOST_DATA
#   HOST_DATA=             32 bytes in base64, which the report shows
#   ID_BLOCK= ID_AUTH=     base64 of `troth measure id-block`; a file signed with
#                          `troth igvm sign` carries them itself and needs neither
#   TPM_SOCKET=            control socket of a swtpm, for a bundle that uses the host's TPM
#   QEMU=qemu-system-x86_64
#   DRY_RUN=1              print the command instead of running it
set -eu
[ $# -eq 2 ] || { sed -n '3,22s/^# \{0,1\}//p' "$0" >&2; exit 2; }
bundle=$1 file=$2
[ -f "$bundle/manifest.json" ] || { echo "igvm-launch: $bundle is no bundle" >&2; exit 2; }
[ -f "$file" ] || { echo "igvm-launch: no $file" >&2; exit 2; }
case $bundle$file${INSTANCE:-} in *,*) echo "igvm-launch: QEMU takes no comma in a path" >&2; exit 2 ;; esac
vcpus=${VCPUS:-1} memory=${MEMORY:-1G}
if [ -n "${INSTANCE:-}" ]; then
    [ -z "${HOST_DATA:-}" ] || { echo "igvm-launch: INSTANCE sets HOST_DATA itself" >&2; exit 2; }
    [ -s "$INSTANCE" ] || { echo "igvm-launch: no $INSTANCE, or an empty one" >&2; exit 2; }
    HOST_DATA=$(openssl dgst -sha256 -binary "$INSTANCE" | base64)
fi

guest="sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy=${POLICY:-0x30000}"
[ -z "${HOST_DATA:-}" ] || guest="$guest,host-data=$HOST_DATA"
[ -z "${ID_BLOCK:-}" ] || guest="$guest,id-block=$ID_BLOCK,id-auth=$ID_AUTH"

# No firmware, no display: Linux takes its tables from the file, and the VGA window is not memory.
# One socket, one thread a core: APIC IDs 0 to VCPUS - 1 without gaps, as in the measured tables.
set -- "${QEMU:-qemu-system-x86_64}" -no-user-config -nodefaults -no-reboot -display none -vga none \
    -accel kvm -cpu "${CPU:-EPYC-v4}" -m "$memory" \
    -smp "$vcpus,sockets=1,cores=$vcpus,threads=1,maxcpus=$vcpus" \
    -machine q35,confidential-guest-support=sev0,igvm-cfg=igvm0,memory-backend=ram0,vmport=off,smm=off \
    -object "memory-backend-memfd,id=ram0,size=$memory,share=true,prealloc=false,reserve=false" \
    -object "$guest" -object "igvm-cfg,id=igvm0,file=$file" -serial stdio

[ -z "${TPM_SOCKET:-}" ] || set -- "$@" -chardev "socket,id=swtpm,path=$TPM_SOCKET" \
    -tpmdev emulator,id=tpm0,chardev=swtpm -device tpm-crb,tpmdev=tpm0

for image in "$bundle"/root.img "$bundle"/volume-*.img; do
    [ -f "$image" ] || continue
    name=$(basename "$image" .img) && name=${name#volume-}
    set -- "$@" -drive "if=none,id=disk-$name,format=raw,readonly=on,file=$image" \
        -device "virtio-blk-pci,drive=disk-$name,serial=$name,disable-legacy=on,iommu_platform=on"
done

[ -z "${INSTANCE:-}" ] || set -- "$@" \
    -drive "if=none,id=disk-instance,format=raw,readonly=on,file=$INSTANCE" \
    -device "virtio-blk-pci,drive=disk-instance,serial=instance,disable-legacy=on,iommu_platform=on"

if [ -n "${DRY_RUN:-}" ]; then
    printf '%s\n' "$*"
else
    exec "$@"
fi
