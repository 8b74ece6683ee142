/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next init of images with encrypted volumes: shows what every volume has
 * kept, adds a line of TOKEN to each, shows mounts, keys and network, and
 * powers off. With the word "app.wait=yes" on the command line it first waits,
 * with a planted secret in its memory, until somebody sends it a byte.
 */
#include "say.h"
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

static int waits(void)
{
	static char words[4096];
	int fd = open("/proc/cmdline", O_RDONLY);
	ssize_t got = read(fd, words, sizeof words - 1);

	close(fd);
	return got > 0 && strstr(words, "app.wait=yes");
}

static void wait_for_host(void)
{
	/* Made here, so that it is nowhere but in this process's memory. */
	static char planted[64];
	char byte;

	for (int at = 0; at < 32; at++)
		snprintf(planted + at, 2, "%c", (TOKEN)[at % (sizeof TOKEN - 1)] ^ 0x15);
	int fd = open("/dev/vport1p1", O_RDWR);
	say("@@ waiting %d\n", fd);
	if (fd >= 0 && read(fd, &byte, 1) < 0)
		say("error %s\n", strerrorname_np(errno));
	say("@@ planted %d\n", (int)strlen(planted));
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
	if (waits())
		wait_for_host();
	sync();
	say("\n@@ done " TOKEN "\n");
	usleep(20000);
	reboot(RB_POWER_OFF);
	return 1;
}
