/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next init of images with encrypted volumes: shows what every volume has
 * kept, adds a line of TOKEN to each, shows mounts, keys and network, and
 * powers off. With the word "app.wait=yes" on the command line it first waits,
 * with a planted secret in its memory, until somebody sends it a byte.
 */
#include <linux/dm-ioctl.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

#include "say.h"
#include "step.h"
#include "verb.h"

static void keep(const char *place)
{
	char path[128];

	snprintf(path, sizeof path, "%s/kept", place);
	show(path);
	int fd = open(path, O_CREAT | O_WRONLY | O_APPEND, 0644);
	if (fd < 0 || write(fd, "kept " TOKEN "\n", sizeof "kept " TOKEN) < 0 || fsync(fd))
		say("error %s\n", strerrorname_np(errno));
	close(fd);
}

static int asked(const char *word)
{
	static char words[4096];
	int fd = open("/proc/cmdline", O_RDONLY);
	ssize_t got = read(fd, words, sizeof words - 1);

	close(fd);
	return got > 0 && strstr(words, word);
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

/* Takes the maps of volume data away again, so that dm-crypt gives its keys up. */
static void close_data(void)
{
	static const char *const names[] = { "troth-data", "troth-data-dif" };
	int fd = open("/dev/mapper/control", O_RDWR);

	if (umount("/srv/data"))
		say("error %s\n", strerrorname_np(errno));
	for (int at = 0; at < 2; at++) {
		struct dm_ioctl order = { .version = { 4, 0, 0 }, .data_size = sizeof order };

		strcpy(order.name, names[at]);
		if (ioctl(fd, DM_DEV_REMOVE, &order))
			say("error %s\n", strerrorname_np(errno));
	}
	close(fd);
}

/* Two looks at this machine's memory: with the volume open, and after it was closed. */
static void wait_for_host(void)
{
	/* Made here, so that it is nowhere but in this process's memory. */
	static volatile char planted[33];

	for (int at = 0; at < 32; at++)
		planted[at] = (TOKEN)[at % (sizeof TOKEN - 1)] ^ 0x15;
	step("open");
	close_data();
	step("closed");
	say("@@ planted %d\n", planted[0]);
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
	if (asked("app.shadow=yes"))
		shadow();
	if (asked("app.wait=yes"))
		wait_for_host();
	sync();
	say("\n@@ done " TOKEN "\n");
	usleep(20000);
	reboot(RB_POWER_OFF);
	return 1;
}
