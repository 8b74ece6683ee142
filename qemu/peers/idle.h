/* SPDX-License-Identifier: Apache-2.0 */
/* Idle time of the only processor, for the bench's programs. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Nanoseconds that the processor had nothing to do, from the kernel's start on; -1: unknown. */
static long long idle_ns(void)
{
	static char list[65536];
	int fd = open("/proc/timer_list", O_RDONLY);
	size_t have = 0;
	ssize_t got;
	char *at;

	while (fd >= 0 && (got = read(fd, list + have, sizeof list - 1 - have)) > 0)
		have += got;
	if (fd >= 0)
		close(fd);
	list[have] = 0;
	at = strstr(list, ".idle_sleeptime");
	return at && (at = strchr(at, ':')) ? atoll(at + 1) : -1;
}
