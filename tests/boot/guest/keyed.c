/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next init of images whose key a broker releases: shows what the volume has
 * kept and adds a line of TOKEN, shows mounts, keys, network and log, and powers
 * off. With the word "app.wait=yes" on the command line it first does what code
 * in a guest can do after the handover: it has the secure processor vouch for
 * whatever 64 bytes the host sends, until the host sends a message without any.
 */
#include <stdint.h>
#include <sys/ioctl.h>

#include "say.h"

#define GET_REPORT 0xc0205300UL

struct guest_request {
	uint8_t version, pad[7];
	uint64_t request, response;
	uint32_t firmware_error, vmm_error;
};

struct report_request {
	uint8_t data[64];
	uint32_t vmpl, key_selection;
	uint8_t rest[24];
};

static void keep(const char *path)
{
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

static int whole(int fd, uint8_t *data, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t got = read(fd, data + at, size - at);
		if (got < 0)
			return 0;
		if (!got)
			usleep(10000);
		at += (size_t)got;
	}
	return 1;
}

/* The virtio-serial port of that name, as udev would find it. */
static int open_port(const char *wanted)
{
	DIR *ports = opendir("/sys/class/virtio-ports");
	int found = -1;

	for (struct dirent *item; ports && found < 0 && (item = readdir(ports));) {
		char path[512], name[64] = "";
		int fd;

		snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", item->d_name);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			continue;
		if (read(fd, name, sizeof name - 1) > 0)
			name[strcspn(name, "\n")] = 0;
		close(fd);
		snprintf(path, sizeof path, "/dev/%s", item->d_name);
		if (!strcmp(name, wanted))
			found = open(path, O_RDWR);
	}
	if (ports)
		closedir(ports);
	return found;
}

/* A question is one byte, 1 and 64 bytes behind it, or 0. */
static void vouch(void)
{
	static uint8_t response[4000];
	int port = open_port("vouch"), device = open("/dev/sev-guest", O_RDWR);
	uint8_t more = 0;

	say("@@ waiting %d %d\n", port >= 0, device >= 0);
	while (whole(port, &more, 1) && more) {
		struct report_request asked = { .vmpl = 0 };
		struct guest_request argument = { .version = 1, .request = (uintptr_t)&asked,
						  .response = (uintptr_t)response };
		if (!whole(port, asked.data, sizeof asked.data))
			break;
		if (ioctl(device, GET_REPORT, &argument))
			say("error %s\n", strerrorname_np(errno));
		if (write(port, response + 32, 1184) != 1184)
			say("error %s\n", strerrorname_np(errno));
	}
}

int main(void)
{
	static const char *const files[] = {
		"/proc/mounts", "/proc/keys", "/proc/net/route", "/proc/net/if_inet6",
		"/proc/net/tcp", "/proc/net/packet", "/sys/class/net/eth0/flags",
		"/etc/resolv.conf", "/run/troth/event-log.jsonl",
	};

	say("\n@@ marker " TOKEN "\n");
	for (size_t at = 0; at < sizeof files / sizeof *files; at++)
		show(files[at]);
	list("/dev/mapper");
	keep("/srv/data/kept");
	if (waits())
		vouch();
	sync();
	say("\n@@ done " TOKEN "\n");
	usleep(20000);
	reboot(RB_POWER_OFF);
	return 1;
}
