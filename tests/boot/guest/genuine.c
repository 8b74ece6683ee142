/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PID 1 of a guest with the kernel's own configfs-tsm: loads it and a provider,
 * and asks as the next init of a simulated guest does, with the same code. Then
 * troth's own verb asks, from the runtime in the same initramfs.
 */
#define main next_init
#include "snp.c"
#undef main

#include <sys/mount.h>
#include <sys/syscall.h>

static void load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int failed = fd < 0 || syscall(SYS_finit_module, fd, "", 0) ? errno : 0;

	say("load %s %s\n", path, failed ? strerrorname_np(failed) : "ok");
	if (fd >= 0)
		close(fd);
}

int main(void)
{
	say("\n@@ marker " TOKEN "\n");
	mount("proc", "/proc", "proc", 0, "");
	mount("sysfs", "/sys", "sysfs", 0, "");
	mount("tmpfs", "/run", "tmpfs", 0, "");
	load("/configfs.ko");
	load("/tsm.ko");
	load("/genuine_tsm.ko");
	mount("configfs", "/sys/kernel/config", "configfs", 0, "");
	mkdir("/run/troth", 0755);
	mkdir("/run/troth/runtime", 0755);
	mount("/runtime", "/run/troth/runtime", "", MS_BIND, "");
	symlink("runtime/bin", "/run/troth/bin");
	ask_tree();
	ask_corners();
	run_verb("configfs-tsm");
	say("\n@@ done " TOKEN "\n");
	usleep(20000);
	reboot(RB_POWER_OFF);
	return 1;
}
