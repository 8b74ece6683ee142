# SPDX-License-Identifier: Apache-2.0
"""Images of the peers: the same work done by other people's initramfs.

Everything comes from one Debian 12 chroot made by mmdebstrap, so that neither
dracut's nor initramfs-tools' hooks ever see the machine that runs the bench.
Serves ``run``. A peer must get the treatment that flatters it: only what the
work needs is packed, and no peer measures or logs what troth does.
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

from disks import PEERS, Disk, Sealed, compile_static
from kernels import Kernel, closure

#: Names for modprobe; what is built in is left out per kernel.
MODULES = ("virtio_pci", "virtio_blk", "dm_verity", "overlay", "erofs")
#: What a LUKS2 volume takes besides, without a driver for the processor's AES: no peer must.
LUKS_MODULES = ("dm_crypt", "xts")
#: In 6.1 xts is made of it.
LUKS_MODULES_BEFORE = {"6.1.": ("ecb",)}
PACKAGES = (
    "initramfs-tools,dracut-core,kmod,udev,systemd,systemd-sysv,dbus,cryptsetup-bin,"
    "dmsetup,zstd,busybox-static"
)
#: What its own authenticated volumes take, by the same ciphers as troth's; sha256_ssse3 where
#: the kernel has it as a module.
LOAD_MODULES = ("dm_crypt", "aesni_intel", "xts", "authenc", "dm_integrity", "ctr",
                "ghash_generic", "gcm", "algif_aead")  # fmt: skip
LOAD_WORDS = ("umount", "poweroff", "sync")
BUSYBOX_WORDS = ("sh", "mount", "mkdir", "insmod", "switch_root", "usleep", "cat", "echo")


def chroot(cache: Path) -> Path:
    """The peers' Debian 12 tree in ``cache``, made on first use (needs root)."""
    tree = cache / "peers-chroot"
    if not tree.exists():
        part = cache / "peers-chroot.part"
        if part.exists():
            subprocess.run(["rm", "-rf", "--one-file-system", part], check=True)
        subprocess.run(
            ["mmdebstrap", "--quiet", "--mode=root", "--variant=apt",
             f"--include={PACKAGES}", "bookworm", part],
            check=True,
        )  # fmt: skip
        part.rename(tree)
    return tree


def versions(tree: Path) -> dict[str, str]:
    """Versions of the peers' own packages in the chroot."""
    said = _inside(tree, "dpkg-query", "-W", "-f", "${Package} ${Version}\n")
    pairs = dict(line.split() for line in said.splitlines())
    names = (
        "initramfs-tools",
        "dracut-core",
        "systemd",
        "cryptsetup-bin",
        "busybox-static",
        "kmod",
    )
    return {name: pairs[name] for name in names}


def modules_into(tree: Path, kernel: Kernel) -> Path:
    """Copy the kernel's modules into the chroot and index them; its module directory."""
    target = tree / "lib/modules" / kernel.release
    if not (target / "modules.dep").exists():
        shutil.copytree(kernel.modules, target, dirs_exist_ok=True)
        shutil.copyfile(kernel.vmlinuz, tree / "boot" / kernel.vmlinuz.name)
        config = kernel.vmlinuz.with_name(f"config-{kernel.release}")
        shutil.copyfile(config, tree / "boot" / config.name)
        _inside(tree, "depmod", kernel.release)
    return target


def floor(work: Path, modules: Path, disks: tuple[Disk, ...]) -> Path:
    """The static C program; modules decompressed."""
    image = _fresh(work / "floor")
    compile_static("floor.c", image / "init")
    lines = [f"module {path}" for path in _pack_plain(modules, image)]
    lines += [
        f"disk {disk.serial} {disk.serial} erofs {disk.mount} {disk.hash_offset_bytes // 4096} "
        f"{disk.hash_offset_bytes // 4096 + 1} {disk.root_hash} {disk.salt}"
        for disk in disks
    ]
    (image / "floor.conf").write_text("\n".join(lines) + "\n")
    return _cpio(image)


def busybox(
    work: Path,
    tree: Path,
    modules: Path,
    disks: tuple[Disk, ...],
    *,
    plain: bool,
    sealed: Sealed | None = None,
    timed: bool = False,
    further: tuple[str, ...] = (),
) -> Path:
    """busybox sh + veritysetup + cryptsetup.

    ``plain``: modules are packed decompressed and loaded by busybox insmod.
    Otherwise they are packed as Debian ships them; where that is .ko.xz,
    busybox insmod cannot load them and Debian's kmod comes along. ``timed``:
    cryptsetup runs under ``timed``, so that this is no row of its own.
    ``further``: more modules.
    """
    names = (*_modules(sealed, modules.name), *further)
    image = _fresh(work / f"busybox{'-plain' if plain else ''}")
    for name in ("bin", "sbin", "usr/sbin", "lib", "lib64", "usr/lib"):
        (image / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(tree / "bin/busybox", image / "bin/busybox")
    for word in BUSYBOX_WORDS:
        (image / "bin" / word).symlink_to("busybox")
    programs = ["/usr/sbin/veritysetup", "/usr/sbin/cryptsetup"]
    needed = closure(modules / "modules.dep", names)
    compressed = not plain and any(path.endswith(".xz") for path in needed)
    if compressed:
        programs.append("/bin/kmod")
        (image / "sbin/modprobe").symlink_to("/bin/kmod")
        for path in needed:
            _copy(modules / path, image / "lib/modules" / modules.name / path)
        for name in ("modules.dep.bin", "modules.alias.bin", "modules.symbols.bin",
                     "modules.builtin.bin", "modules.softdep", "modules.dep"):  # fmt: skip
            shutil.copy(modules / name, image / "lib/modules" / modules.name)
        load, words = "modprobe", " ".join(Path(path).name.split(".")[0] for path in needed)
    else:
        load, words = "insmod", " ".join(_pack_plain(modules, image, names))
    _pack_programs(tree, programs, image)
    conf = f'LOAD={load}\nMODULES="{words}"\n' + _conf(disks, sealed)
    if timed:
        compile_static("timed.c", image / "bin/timed")
        conf += 'TIMED="timed open"\n'
    (image / "bench.conf").write_text(conf)
    if sealed is not None and sealed.key is not None:
        shutil.copy(sealed.key, image / "bench.key")
    shutil.copy(PEERS / "busybox-init.sh", image / "init")
    (image / "init").chmod(0o755)
    return _cpio(image)


def loads(
    work: Path, tree: Path, modules: Path, key: Path, formats: dict[str, tuple[str, ...]]
) -> Path:
    """busybox sh that formats and loads volumes of cryptsetup's own, one after another."""
    image = _fresh(work / "busybox-load")
    for name in ("bin", "sbin", "usr/sbin", "lib", "lib64", "usr/lib"):
        (image / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(tree / "bin/busybox", image / "bin/busybox")
    for word in (*BUSYBOX_WORDS, *LOAD_WORDS):
        (image / "bin" / word).symlink_to("busybox")
    fast = ("sha256_ssse3",) if any(modules.rglob("sha256-ssse3.ko*")) else ()
    names = (*fast, "virtio_pci", "virtio_blk", *LOAD_MODULES)
    words = " ".join(_pack_plain(modules, image, names))
    _pack_programs(tree, ["/usr/sbin/cryptsetup", "/sbin/mke2fs"], image)
    for name in ("timed", "volume_load"):
        compile_static(f"{name}.c", image / "bin" / name)
    (image / "bench.conf").write_text(f'MODULES="{words}"\n')
    lines = (f"{name} {' '.join(words)}\n" for name, words in formats.items())
    (image / "bench.loads").write_text("".join(lines))
    shutil.copy(key, image / "bench.key")
    shutil.copy(PEERS / "busybox-load.sh", image / "init")
    (image / "init").chmod(0o755)
    return _cpio(image)


def initramfs_tools(
    work: Path,
    tree: Path,
    kernel: Kernel,
    disks: tuple[Disk, ...],
    *,
    sealed: Sealed | None = None,
) -> Path:
    """initramfs-tools with MODULES=list and one hook."""
    etc = tree / "etc/initramfs-tools"
    _configure(tree, disks, sealed, kernel.release)
    (etc / "initramfs.conf").write_text(
        "MODULES=list\nBUSYBOX=auto\nKEYMAP=n\nCOMPRESS=zstd\nDEVICE=\nNFSROOT=auto\n"
        "RUNSIZE=10%\nFSTYPE=auto\nRESUME=none\nBOOT=bench\n"
    )
    (etc / "modules").write_text("\n".join(_modules(sealed, kernel.release)) + "\n")
    (etc / "scripts").mkdir(exist_ok=True)
    shutil.copy(PEERS / "initramfs-tools/hook", etc / "hooks/bench")
    (etc / "hooks/bench").chmod(0o755)
    shutil.copy(PEERS / "initramfs-tools/bench", etc / "scripts/bench")
    _inside(tree, "mkinitramfs", "-o", "/var/tmp/bench.img", kernel.release)
    raw = work / "initramfs-tools.cpio"
    with raw.open("wb") as out:
        subprocess.run(["zstd", "-qdc", tree / "var/tmp/bench.img"], check=True, stdout=out)
    return raw


def dracut(
    work: Path,
    tree: Path,
    kernel: Kernel,
    disks: tuple[Disk, ...],
    *,
    sealed: Sealed | None = None,
) -> Path:
    """dracut with systemd and nothing but the bench's module and what that needs."""
    _configure(tree, disks, sealed, kernel.release)
    target = tree / "usr/lib/dracut/modules.d/99bench"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(PEERS / "dracut", target)
    for script in target.glob("*.sh"):
        script.chmod(0o755)
    _inside(
        tree, "dracut", "--force", "--quiet", "--no-hostonly", "--no-early-microcode",
        "--no-compress", "--reproducible", "--nofscks", "--drivers",
        " ".join(_modules(sealed, kernel.release)), "--filesystems", "erofs",
        "-m", "base systemd-initrd bench",
        "--kver", kernel.release, "/var/tmp/bench.img",
    )  # fmt: skip
    return Path(shutil.copy(tree / "var/tmp/bench.img", work / "dracut.cpio"))


def compress(raw: Path) -> Path:
    """``raw`` as zstd -19, the form in which every peer is booted."""
    target = raw.with_name(raw.name + ".zst")
    subprocess.run(["zstd", "-q", "-f", "-19", "-T0", raw, "-o", target], check=True)
    return target


def _modules(sealed: Sealed | None, release: str) -> tuple[str, ...]:
    if sealed is None:
        return MODULES
    before = [names for series, names in LUKS_MODULES_BEFORE.items() if release.startswith(series)]
    return (*MODULES, *(name for names in before for name in names), *LUKS_MODULES)


def _configure(tree: Path, disks: tuple[Disk, ...], sealed: Sealed | None, release: str) -> None:
    """What the peers' own hooks take from the chroot."""
    (tree / "etc/bench.conf").write_text(_conf(disks, sealed))
    (tree / "etc/bench.modules").write_text(
        " ".join(_modules(sealed, release)[len(MODULES) :]) + "\n"
    )
    key = tree / "etc/bench.key"
    key.unlink(missing_ok=True)
    if sealed is not None and sealed.key is not None:
        shutil.copy(sealed.key, key)


def _conf(disks: tuple[Disk, ...], sealed: Sealed | None) -> str:
    lines = [
        f'DISK_{disk.serial}="{disk.serial} {disk.hash_offset_bytes} {disk.root_hash} erofs '
        f'{disk.mount}"'
        for disk in disks
    ]
    if sealed is not None:
        lines.append(f'LUKS_{sealed.serial}="{sealed.serial} /bench.key {sealed.mount}"')
    return "\n".join(lines) + "\n"


def _pack_plain(modules: Path, image: Path, names: tuple[str, ...] = MODULES) -> list[str]:
    packed = []
    for path in closure(modules / "modules.dep", names):
        content = (modules / path).read_bytes()
        if path.endswith(".xz"):
            content = lzma.decompress(content)
        name = f"/lib/{Path(path).name.removesuffix('.xz')}"
        (image / "lib").mkdir(exist_ok=True)
        (image / name.lstrip("/")).write_bytes(content)
        packed.append(name)
    return packed


def _pack_programs(tree: Path, programs: list[str], image: Path) -> None:
    wanted = set(programs)
    for program in programs:
        for line in _inside(tree, "ldd", program).splitlines():
            wanted.update(word for word in line.split() if word.startswith("/"))
    for path in sorted(wanted):
        _copy(tree / path.lstrip("/"), image / path.lstrip("/"))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _fresh(image: Path) -> Path:
    shutil.rmtree(image, ignore_errors=True)
    for name in ("dev", "proc", "sys", "run"):
        (image / name).mkdir(parents=True)
    return image


def _cpio(image: Path) -> Path:
    names = sorted(str(path.relative_to(image)) for path in image.rglob("*"))
    raw = image.with_name(image.name + ".cpio")
    with raw.open("wb") as out:
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0", "--reproducible", "-0"],
            input="\0".join(names).encode(), check=True, cwd=image, stdout=out,
        )  # fmt: skip
    return raw


def _inside(tree: Path, *command: str) -> str:
    """Run in the chroot with /proc and /dev, in a mount namespace that ends with it."""
    script = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, tree, *command],
        check=False, capture_output=True, text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    if ran.returncode:
        raise SystemExit(f"bench: {command[0]} failed in the peers' chroot:\n{ran.stderr[-3000:]}")
    return ran.stdout
