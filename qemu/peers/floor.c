/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor of an init: the bench's work in one static program with nothing to
 * spare. Reads /floor.conf (made with the image):
 *
 *     module PATH
 *     disk SERIAL NAME FSTYPE MOUNTPOINT DATA_BLOCKS HASH_START ROOT_HASH SALT
 *
 * It measures nothing, logs nothing and explains no failure beyond a line:
 * it is a yardstick, not an example of how to boot.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void need(int bad, const char *what)
{
	if (bad)
		die(what);
}

/* /dev node of the virtio disk with this serial; waits up to ten seconds. */
static const char *find(const char *serial, char *node, size_t room)
{
	struct timespec pause = {0, 1000000};

	for (int round = 0; round < 10000; round++, nanosleep(&pause, NULL))
		for (char letter = 'a'; letter <= 'd'; letter++) {
			char path[64], seen[32] = "";
			int fd;

			snprintf(path, sizeof path, "/sys/block/vd%c/serial", letter);
			if ((fd = open(path, O_RDONLY)) < 0)
				continue;
			if (read(fd, seen, sizeof seen - 1) > 0 && !strcmp(seen, serial)) {
				close(fd);
				snprintf(node, room, "/dev/vd%c", letter);
				return node;
			}
			close(fd);
		}
	errno = ENODEV;
	die(serial);
	return NULL;
}

static void dm(int control, unsigned long request, struct dm_ioctl *io, const char *name)
{
	io->version[0] = DM_VERSION_MAJOR;
	io->data_start = sizeof *io;
	snprintf(io->name, sizeof io->name, "%s", name);
	need(ioctl(control, request, io), name);
}

static void verity(int control, const char *name, const char *node, unsigned long long blocks,
		   unsigned long long start, const char *root, const char *salt, char *mapped)
{
	struct {
		struct dm_ioctl io;
		struct dm_target_spec target;
		char words[768];
	} load = {.io = {.data_size = sizeof load, .target_count = 1, .flags = DM_READONLY_FLAG}};
	struct dm_ioctl io = {.data_size = sizeof io};
	unsigned long long device;

	dm(control, DM_DEV_CREATE, &io, name);
	device = io.dev;
	load.target.length = blocks * 8;
	strcpy(load.target.target_type, "verity");
	snprintf(load.words, sizeof load.words, "1 %s %s 4096 4096 %llu %llu sha256 %s %s", node,
		 node, blocks, start, root, salt);
	dm(control, DM_TABLE_LOAD, &load.io, name);
	memset(&io, 0, sizeof io);
	io.data_size = sizeof io;
	dm(control, DM_DEV_SUSPEND, &io, name); /* without the flag it resumes */
	sprintf(mapped, "/dev/dm-%u", minor(device));
}

static void module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	need(fd < 0 || syscall(SYS_finit_module, fd, "", 0), path);
	close(fd);
}

int main(void)
{
	char serial[32], name[32], kind[32], where[64], root[72], salt[72], node[32], mapped[32];
	unsigned long long blocks, start;
	int control = -1;
	char line[512];
	FILE *plan;

	need(mount("dev", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, NULL), "dev");
	need(mount("proc", "/proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL), "proc");
	need(mount("sys", "/sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL), "sys");
	need(mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"), "run");
	need(!(plan = fopen("/floor.conf", "re")), "floor.conf");
	mkdir("/verified", 0700);
	mkdir("/above", 0700);
	mkdir("/next", 0700);
	while (fgets(line, sizeof line, plan)) {
		if (sscanf(line, "module %63s", where) == 1) {
			module(where);
			continue;
		}
		need(sscanf(line, "disk %31s %31s %31s %63s %llu %llu %71s %71s", serial, name, kind,
			    where, &blocks, &start, root, salt) != 8, "floor.conf line");
		if (control < 0)
			need((control = open("/dev/mapper/control", O_RDWR | O_CLOEXEC)) < 0,
			     "device-mapper");
		verity(control, name, find(serial, node, sizeof node), blocks, start, root, salt,
		       mapped);
		if (strcmp(where, "/")) {
			char below[80];

			snprintf(below, sizeof below, "/next%s", where);
			need(mount(mapped, below, kind, MS_RDONLY | MS_NODEV | MS_NOSUID, NULL), where);
			continue;
		}
		need(mount(mapped, "/verified", kind, MS_RDONLY, NULL), "root");
		need(mount("above", "/above", "tmpfs", 0, "mode=755"), "tmpfs");
		mkdir("/above/upper", 0755);
		mkdir("/above/work", 0755);
		need(mount("overlay", "/next", "overlay", 0,
			   "lowerdir=/verified,upperdir=/above/upper,workdir=/above/work"), "overlay");
	}
	fclose(plan);
	need(mount("/dev", "/next/dev", NULL, MS_MOVE, NULL), "move dev");
	need(mount("/proc", "/next/proc", NULL, MS_MOVE, NULL), "move proc");
	need(mount("/sys", "/next/sys", NULL, MS_MOVE, NULL), "move sys");
	need(mount("/run", "/next/run", NULL, MS_MOVE, NULL), "move run");
	unlink("/init");
	need(chdir("/next") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"),
	     "switch root");
	execl("/sbin/init", "/sbin/init", (char *)NULL);
	die("exec");
}
