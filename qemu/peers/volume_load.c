/* SPDX-License-Identifier: Apache-2.0 */
/*
 * volume_load DIRECTORY...: writes a file on each mounted volume and reads it back, past the
 * page cache, and says on the console how many instructions each took: nanoseconds of a clock
 * that counts them, without the idle ones. As PID 1 it takes the directories from /etc/loads,
 * and powers the machine off.
 * It must never report a volume whose data did not come back.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#include "idle.h"

#define CHUNK_BYTES (1 << 20)
#define CHUNKS 8

static unsigned char *chunk;

static long long busy_ns(void)
{
	struct timespec now;
	long long idle = idle_ns();

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec - idle;
}

static void fill(int number)
{
	unsigned seed = number * 2654435761u + 1;

	for (int at = 0; at < CHUNK_BYTES; at += 4, seed = seed * 1664525u + 1013904223u)
		memcpy(chunk + at, &seed, 4);
}

static int load(const char *directory, long long *wrote, long long *read_)
{
	char path[128];
	long long began;
	int fd;

	snprintf(path, sizeof path, "%s/load", directory);
	*wrote = *read_ = 0;
	/* O_EXCL: a file that was there before would have its blocks already */
	if ((fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_DIRECT, 0600)) < 0)
		return -1;
	for (int number = 0; number < CHUNKS; number++) {
		fill(number);
		began = busy_ns();
		if (write(fd, chunk, CHUNK_BYTES) != CHUNK_BYTES)
			return -1;
		*wrote += busy_ns() - began;
	}
	began = busy_ns();
	if (fsync(fd) || close(fd))
		return -1;
	*wrote += busy_ns() - began;
	if ((fd = open(path, O_RDONLY | O_DIRECT)) < 0)
		return -1;
	for (int number = 0; number < CHUNKS; number++) {
		unsigned char seen[16];

		began = busy_ns();
		if (read(fd, chunk, CHUNK_BYTES) != CHUNK_BYTES)
			return -1;
		*read_ += busy_ns() - began;
		memcpy(seen, chunk + CHUNK_BYTES - sizeof seen, sizeof seen);
		fill(number);
		if (memcmp(seen, chunk + CHUNK_BYTES - sizeof seen, sizeof seen))
			return -1;
	}
	close(fd);
	return unlink(path);
}

int main(int count, char **words)
{
	static char list[1024], line[256];
	char *names[16];
	int many = 0, first = getpid() == 1;
	int console = open("/dev/console", O_WRONLY | O_NOCTTY);

	if (first) {
		int fd = open("/etc/loads", O_RDONLY);

		if (fd < 0 || read(fd, list, sizeof list - 1) <= 0)
			return 1;
		for (char *word = strtok(list, " \n"); word && many < 16; word = strtok(NULL, " \n"))
			names[many++] = word;
	} else {
		for (int at = 1; at < count && many < 16; at++)
			names[many++] = words[at];
	}
	if (posix_memalign((void **)&chunk, 4096, CHUNK_BYTES))
		return 1;
	/* once for nothing: what formats and mounts left to be done in the background is done then */
	for (int at = 0; at < many; at++) {
		long long wrote, read_;

		load(names[at], &wrote, &read_);
	}
	sync();
	for (int at = 0; at < many; at++) {
		long long wrote, read_;
		int bad = load(names[at], &wrote, &read_);

		snprintf(line, sizeof line, "\nbench-load %s bytes=%d write_ns=%lld read_ns=%lld good=%d end\n",
			 names[at], CHUNKS * CHUNK_BYTES, wrote, read_, !bad);
		if (write(console < 0 ? 1 : console, line, strlen(line)) < 0)
			return 1;
	}
	if (first) {
		if (console >= 0)
			fsync(console);
		usleep(20000);
		sync();
		reboot(RB_POWER_OFF);
	}
	return 0;
}
