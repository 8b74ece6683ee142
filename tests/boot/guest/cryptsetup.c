/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next init of a guest in which cryptsetup itself makes, or opens, a LUKS2
 * volume with tags, which needs a device-mapper. A blank disk "data" is
 * formatted and gets a file system; every start shows what its file has kept
 * and adds a line. UUID is that of the volume; /etc/pass has its passphrase.
 */
#include <sys/mount.h>

#include "say.h"

static char *environment[] = { "DM_DISABLE_UDEV=1", "PATH=/usr/sbin", "LC_ALL=C", NULL };

static int run(char **words)
{
	int status = -1;
	pid_t child = fork();

	if (!child) {
		execve(words[0], words, environment);
		_exit(127);
	}
	waitpid(child, &status, 0);
	say("@@ status %s %s\n%d\n", words[0], words[1], status);
	return status;
}

/* The device of the disk whose serial number is "data". */
static char *disk(void)
{
	static char found[64];
	char path[64], serial[32];

	for (char letter = 'a'; letter < 'e'; letter++) {
		snprintf(path, sizeof path, "/sys/block/vd%c/serial", letter);
		int fd = open(path, O_RDONLY);
		ssize_t got = read(fd, serial, sizeof serial);
		close(fd);
		if (got == 4 && !memcmp(serial, "data", 4))
			snprintf(found, sizeof found, "/dev/vd%c", letter);
	}
	return found;
}

int main(void)
{
	char *device = disk(), first[4] = "";
	int fd = open(device, O_RDONLY);

	say("\n@@ marker " TOKEN "\n");
	(void)!read(fd, first, sizeof first);
	close(fd);
	char *format[] = {
		"/usr/sbin/cryptsetup", "luksFormat", "--type", "luks2", "--batch-mode", "--uuid", UUID,
		"--cipher", "aes-xts-plain64", "--key-size", "512", "--integrity", "hmac-sha256",
		"--sector-size", "4096", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--key-file", "/etc/pass", device, NULL,
	};
	char *start[] = {
		"/usr/sbin/cryptsetup", "open", "--key-file", "/etc/pass", device, "clear", NULL,
	};
	char *make[] = { "/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "/dev/mapper/clear", NULL };
	char *end[] = { "/usr/sbin/cryptsetup", "close", "clear", NULL };
	int is_new = memcmp(first, "LUKS", 4) != 0;

	mkdir("/run/mnt", 0700);
	if (!(is_new && run(format)) && !run(start) && !(is_new && run(make))
	    && !mount("/dev/mapper/clear", "/run/mnt", "ext4", 0, "")) {
		show("/run/mnt/kept");
		int file = open("/run/mnt/kept", O_CREAT | O_WRONLY | O_APPEND, 0644);
		dprintf(file, "cryptsetup " TOKEN "\n");
		fsync(file);
		close(file);
		umount("/run/mnt");
		run(end);
	} else {
		say("@@ failed\nerror %s\n", strerrorname_np(errno));
	}
	sync();
	say("\n@@ done " TOKEN "\n");
	usleep(20000);
	reboot(RB_POWER_OFF);
	return 1;
}
