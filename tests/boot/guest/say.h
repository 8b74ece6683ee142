/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the guests of the boot tests report: sections of lines on standard
 * output, which is the console. "@@ NAME" begins one, the next begins another.
 * TOKEN is drawn anew for every test run, so no old output can pass for new.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void put(const char *data, size_t left)
{
	while (left) {
		ssize_t done = write(1, data, left);
		if (done <= 0)
			return;
		data += done;
		left -= (size_t)done;
	}
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	static char line[8192];
	va_list arguments;

	va_start(arguments, format);
	int size = vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	put(line, size < (int)sizeof line ? (size_t)size : sizeof line - 1);
}

/* The file's content as a section; its error where it cannot be read. */
static void show(const char *path)
{
	static char data[1 << 16];
	int fd = open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
	ssize_t got = 0;

	say("@@ file %s\n", path);
	if (fd >= 0) {
		while ((got = read(fd, data, sizeof data)) > 0)
			put(data, (size_t)got);
		close(fd);
	}
	if (fd < 0 || got < 0)
		say("error %s", strerrorname_np(errno));
	say("\n");
}

/* The names in a directory, one a line. */
static void list(const char *path)
{
	DIR *directory = opendir(path);

	say("@@ list %s\n", path);
	if (!directory) {
		say("error %s\n", strerrorname_np(errno));
		return;
	}
	for (struct dirent *item; (item = readdir(directory));)
		if (strcmp(item->d_name, ".") && strcmp(item->d_name, ".."))
			say("%s\n", item->d_name);
	closedir(directory);
}

static void show_words(const char *name, char **words)
{
	say("@@ %s\n", name);
	for (; *words; words++)
		say("%s\n", *words);
}

/* What writing to the path comes to: "ok", or the error's name. */
static void try_write(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	int ok = fd >= 0 && write(fd, "x", 1) == 1;

	say("%s %s\n", path, ok ? "ok" : strerrorname_np(errno));
	if (fd >= 0)
		close(fd);
}

/* How many bytes of the file can be read, and a sum of them. */
static void sum(const char *path)
{
	static unsigned char data[1 << 16];
	int fd = open(path, O_RDONLY);
	unsigned long long bytes = 0, total = 0;
	ssize_t got = -1;

	while (fd >= 0 && (got = read(fd, data, sizeof data)) > 0) {
		for (ssize_t at = 0; at < got; at++)
			total += data[at];
		bytes += (unsigned long long)got;
	}
	say("@@ sum %s\n%llu %llu %s\n", path, bytes, total,
	    got ? strerrorname_np(errno) : "ok");
	if (fd >= 0)
		close(fd);
}
