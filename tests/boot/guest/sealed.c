/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next init of images with encrypted volumes: shows what every volume has
 * kept, adds a line of TOKEN to each, shows mounts, keys and network, and
 * powers off. In the third boot that finds the same writable layer it first writes into
 * that layer's own volume behind its mounts.
 */
#include <sys/mount.h>

#include "say.h"
#include "verb.h"

enum { LINE_BYTES = sizeof "kept " TOKEN };

static void keep(const char *place)
{
	char path[128];

	snprintf(path, sizeof path, "%s/kept", place);
	show(path);
	int fd = open(path, O_CREAT | O_WRONLY | O_APPEND, 0644);
	if (fd < 0 || write(fd, "kept " TOKEN "\n", LINE_BYTES) < 0 || fsync(fd))
		say("error %s\n", strerrorname_np(errno));
	close(fd);
}

/* The agent takes its time to be there. */
static void show_evidence(void)
{
	static const char nonce[] =
		"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

	for (int tries = 0; tries < 20 && run_words("evidence", "--nonce", nonce); tries++)
		usleep(500000);
}

/* What root could do to the writable layer's own volume: something below a workload path. */
static void shadow(void)
{
	mkdir("/run/below", 0700);
	if (mount("/dev/dm-1", "/run/below", "ext4", 0, "") ||
	    mkdir("/run/below/%2Fopt/upper/app", 0755))
		say("error %s\n", strerrorname_np(errno));
	umount("/run/below");
}

int main(int count, char **arguments)
{
	static const char *const files[] = {
		"/proc/mounts", "/proc/keys", "/proc/net/route", "/proc/net/dev", "/proc/modules",
		"/run/troth/event-log.jsonl", "/etc/resolv.conf", "/etc/state",
	};
	static const char *const places[] = { "/srv/data", "/srv/plain", "/srv/scratch", "/var" };

	(void)count;
	(void)arguments;
	say("\n@@ marker " TOKEN "\n");
	for (size_t at = 0; at < sizeof files / sizeof *files; at++)
		show(files[at]);
	list("/dev/mapper");
	list("/proc");
	for (size_t at = 0; at < sizeof places / sizeof *places; at++)
		keep(places[at]);
	try_write("/etc/state");
	try_write("/opt/app/written");
	run_verb("measurements");
	show_evidence();
	struct stat kept;
	if (!stat("/var/kept", &kept) && kept.st_size == 3 * LINE_BYTES)
		shadow();
	sync();
	say("\n@@ done " TOKEN "\n");
	usleep(20000);
	reboot(RB_POWER_OFF);
	return 1;
}
