/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next init of every row of the boot bench: says when it was reached and
 * that the work was done, then powers the machine off.
 *
 * Both times come from the kernel log's own clock, because that clock and
 * CLOCK_MONOTONIC differ by some milliseconds: the line it writes to /dev/kmsg
 * gets its stamp from the kernel, and "Run /init" has one already.
 * It must never do anything before that line that could hide a row's cost.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include "idle.h"

#define LOG_BYTES (1 << 20)
#define OVERLAYFS 0x794c7630
#define EROFS 0xe0f5e1e2u
#define EXT4 0xef53
#define PROBE "troth bench probe"
#define TOKEN "bench: marker reached"

static char text[LOG_BYTES + 1];

/* Stamp of the last line holding `what`, in microseconds; -1 without one. */
static long long stamp(const char *what)
{
	long long found = -1;

	for (char *at = text; (at = strstr(at, what)); at++) {
		char *line = at;
		unsigned long long s, us;

		while (line > text && line[-1] != '\n')
			line--;
		if (sscanf(line, "<%*d>[%llu.%llu]", &s, &us) == 2)
			found = (long long)(s * 1000000 + us);
	}
	return found;
}

static long memory_kib(const char *key)
{
	static char info[8192];
	int fd = open("/proc/meminfo", O_RDONLY);
	ssize_t got = fd < 0 ? -1 : read(fd, info, sizeof info - 1);
	char *at;

	if (fd >= 0)
		close(fd);
	if (got <= 0)
		return -1;
	info[got] = 0;
	at = strstr(info, key);
	return at ? atol(at + strlen(key)) : -1;
}

/* An encrypted volume: what the boot before wrote is there, and it can be written. The
 * boot that finds it empty says "made", which is no figure. */
static const char *sealed(const char *volume)
{
	char line[64] = "";
	int fd;

	if (chdir(volume))
		return "volume-not-there";
	if ((fd = open("probe", O_RDONLY)) < 0) {
		if ((fd = open("probe", O_CREAT | O_WRONLY, 0600)) < 0)
			return "volume-not-writable";
		if (write(fd, PROBE, sizeof PROBE - 1) < 0 || fsync(fd))
			return "volume-not-written";
		return "made";
	}
	if (read(fd, line, sizeof line - 1) <= 0 || strncmp(line, PROBE, sizeof PROBE - 1))
		return "volume-unreadable";
	if ((fd = open("written", O_CREAT | O_WRONLY, 0600)) < 0 || write(fd, "x", 1) != 1 || fsync(fd))
		return "volume-not-writable";
	return "ok";
}

/* The same proof of work for every row: a writable overlay over the verity root, and the
 * probe file read from the second volume, which is a verity one or an encrypted one. */
static const char *work(void)
{
	static char probe[64];
	struct statfs fs;
	ssize_t got;
	int fd;

	if (statfs("/", &fs) || fs.f_type != OVERLAYFS)
		return "root-is-no-overlay";
	if ((fd = open("/written", O_CREAT | O_WRONLY, 0600)) < 0 || write(fd, "x", 1) != 1)
		return "overlay-not-writable";
	close(fd);
	/* examples/service has its volume elsewhere than the bench's own bundle */
	const char *volume = access("/srv/models/probe", F_OK) ? "/srv/data" : "/srv/models";
	/* and a row that asks what a boot without a second disk costs has none */
	if (!access("/etc/no-volume", F_OK))
		return "ok";
	if (statfs(volume, &fs))
		return "volume-not-there";
	if (fs.f_type == EXT4)
		return sealed(volume);
	if ((unsigned)fs.f_type != EROFS)
		return "volume-not-mounted";
	if (chdir(volume) || (fd = open("probe", O_RDONLY)) < 0)
		return "volume-without-probe";
	got = read(fd, probe, sizeof probe - 1);
	if (got <= 0 || strncmp(probe, PROBE, sizeof PROBE - 1))
		return "volume-unreadable";
	return "ok";
}

int main(void)
{
	struct timespec now;
	int kmsg = open("/dev/kmsg", O_WRONLY), console;
	char line[512];
	int got;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (kmsg >= 0 && write(kmsg, "<7>" TOKEN "\n", sizeof "<7>" TOKEN "\n" - 1) < 0)
		kmsg = -1;
	long long idle = idle_ns();
	long total = memory_kib("MemTotal:"), available = memory_kib("MemAvailable:");
	const char *done = work();

	got = klogctl(3 /* SYSLOG_ACTION_READ_ALL */, text, LOG_BYTES);
	text[got > 0 ? got : 0] = 0;
	snprintf(line, sizeof line,
		 "\nbench-marker init_us=%lld marker_us=%lld uptime_us=%lld total_kib=%ld "
		 "available_kib=%ld idle_ns=%lld work=%s end\n",
		 stamp("] Run /"), stamp(TOKEN),
		 (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000, total, available, idle, done);
	console = open("/dev/console", O_WRONLY | O_NOCTTY);
	if (write(console < 0 ? 1 : console, line, strlen(line)) < 0)
		return 1;
	if (console >= 0)
		fsync(console);
	usleep(20000);
	sync();
	reboot(RB_POWER_OFF);
	return 1;
}
