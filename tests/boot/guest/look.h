/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/dm-ioctl.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

#include "step.h"

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
