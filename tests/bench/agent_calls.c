/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Next init of the guest of scripts/bench agent: asks the agent and says what each
 * request took on the guest's clock. The words of /etc/words are done in order:
 *   time NAME COUNT KEEP METHOD PATH   COUNT requests, after as many as warm it up;
 *                      KEEP 1: over one connection, else each over its own
 *   grow WARM COUNT    WARM reports, then COUNT, each over its own connection, and
 *                      what the agent holds before and after the COUNT
 * Lines: "bench-agent sample NAME wall_ns provider_ns cpu_ns", "bench-agent held resident_kib
 * descriptors", "bench-agent done". Anything else that comes of a request ends the guest with
 * "bench-agent failed". It never lets the machine idle: a child without priority spins, so that
 * the instruction-counted clock does not jump.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SOCKET "/run/troth/attest.sock"

static char answer[1 << 20];
static int agent, kept = -1;

static void off(void)
{
	sync();
	usleep(20000);
	reboot(RB_POWER_OFF);
	_exit(1);
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
	va_list words;

	va_start(words, format);
	dprintf(1, "bench-agent failed: ");
	vdprintf(1, format, words);
	dprintf(1, " (errno %d)\n", errno);
	va_end(words);
	off();
	_exit(1);
}

static long long now_ns(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static int reach(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* One request and all of its answer, which must be 200; where its body begins. */
static const char *ask(const char *method, const char *path, const char *body, int keep)
{
	char text[1024];
	size_t size = 0;
	int fd = keep ? kept : reach(), length;

	if (keep && fd < 0)
		fd = kept = reach();
	if (fd < 0)
		fail("connect");
	if (body)
		length = snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
				  "Content-Length: %zu\r\n\r\n%s", method, path, strlen(body), body);
	else
		length = snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: a\r\n\r\n", method, path);
	if (write(fd, text, (size_t)length) != length)
		fail("write");
	for (;;) {
		ssize_t got = read(fd, answer + size, sizeof answer - 1 - size);
		if (got <= 0)
			fail("%s: the answer ends early", path);
		size += (size_t)got;
		answer[size] = 0;
		char *gap = strstr(answer, "\r\n\r\n"), *field = strstr(answer, "Content-Length: ");
		if (!gap || !field || size < (size_t)(gap + 4 - answer) + strtoul(field + 16, NULL, 10))
			continue;
		if (!keep)
			close(fd);
		if (strncmp(answer, "HTTP/1.1 200 ", 13))
			fail("%s: %.400s", path, answer);
		return gap + 4;
	}
}

/* What the agent itself says that its provider has taken so far. */
static long long provider_ns(void)
{
	const char *found = strstr(ask("GET", "/metrics", NULL, 0), "\ntroth_provider_seconds_total ");

	return found ? (long long)(strtod(found + 30, NULL) * 1e9) : 0;
}

/* On the processor, all threads of the agent. */
static long long cpu_ns(void)
{
	char name[300];
	long long sum = 0;
	snprintf(name, sizeof name, "/proc/%d/task", agent);
	DIR *tasks = opendir(name);

	if (!tasks)
		fail("%s", name);
	for (struct dirent *item; (item = readdir(tasks));) {
		char text[200] = { 0 };
		if (!isdigit(item->d_name[0]))
			continue;
		snprintf(name, sizeof name, "/proc/%d/task/%s/schedstat", agent, item->d_name);
		int fd = open(name, O_RDONLY);
		if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
			fail("%s", name);
		close(fd);
		sum += atoll(text);
	}
	closedir(tasks);
	return sum;
}

static void find_agent(void)
{
	DIR *proc = opendir("/proc");

	for (struct dirent *item; proc && (item = readdir(proc));) {
		char name[300], text[512] = { 0 };
		int fd;

		if (!isdigit(item->d_name[0]))
			continue;
		snprintf(name, sizeof name, "/proc/%s/cmdline", item->d_name);
		fd = open(name, O_RDONLY);
		ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
		if (fd >= 0)
			close(fd);
		for (ssize_t at = 0; at < got; at++)
			if (!text[at])
				text[at] = ' ';
		if (strstr(text, "troth.attest.agent"))
			agent = atoi(item->d_name);
	}
	if (proc)
		closedir(proc);
	if (!agent)
		fail("no agent");
}

static void held(void)
{
	char name[300], text[4096] = { 0 };
	int descriptors = 0;

	/* It has seen by then that all callers are gone. */
	sleep(3);
	snprintf(name, sizeof name, "/proc/%d/status", agent);
	int fd = open(name, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
		fail("%s", name);
	close(fd);
	snprintf(name, sizeof name, "/proc/%d/fd", agent);
	DIR *open_ones = opendir(name);
	for (struct dirent *item; open_ones && (item = readdir(open_ones));)
		descriptors += isdigit(item->d_name[0]) != 0;
	closedir(open_ones);
	char *resident = strstr(text, "VmRSS:");
	if (!resident)
		fail("VmRSS");
	dprintf(1, "bench-agent held %lu %d\n", strtoul(resident + 6, NULL, 10), descriptors);
}

/* A new nonce for each: equal questions would share an answer. */
static const char *question(void)
{
	static char body[100];
	static unsigned long count;

	snprintf(body, sizeof body, "{\"nonce\":\"%032lx\"}", ++count);
	return body;
}

static void time_(const char *name, int count, int keep, const char *method, const char *path)
{
	int post = !strcmp(method, "POST"), warm = post ? 3 : 50;

	for (int at = -warm; at < count; at++) {
		const char *body = post ? question() : NULL;
		long long provider = post ? provider_ns() : 0, cpu = cpu_ns(), began = now_ns();
		ask(method, path, body, keep);
		long long wall = now_ns() - began;
		/* The agent closes its side before it is looked at: on one processor it runs now. */
		for (int turns = 0; turns < 20; turns++)
			sched_yield();
		cpu = cpu_ns() - cpu;
		provider = post ? provider_ns() - provider : 0;
		if (at >= 0)
			dprintf(1, "bench-agent sample %s %lld %lld %lld\n", name, wall, provider, cpu);
	}
	if (kept >= 0)
		close(kept);
	kept = -1;
}

static void grow(int warm, int count)
{
	for (int at = 0; at < warm; at++)
		ask("POST", "/v1/report", question(), 0);
	held();
	for (int at = 1; at <= count; at++) {
		ask("POST", "/v1/report", question(), 0);
		if (!(at % 100))
			dprintf(1, "bench-agent asked %d\n", at);
	}
	held();
}

int main(void)
{
	static char text[4096], *words[200];
	struct sched_param none = { 0 };
	int count = 0, tries = 0, fd = open("/etc/words", O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
		fail("/etc/words");
	close(fd);
	for (char *word = strtok(text, " \n"); word && count < 200; word = strtok(NULL, " \n"))
		words[count++] = word;

	signal(SIGPIPE, SIG_IGN);
	if (!fork()) {
		sched_setscheduler(0, SCHED_IDLE, &none);
		/* One block of the emulator, as long as it takes them: the clock passes quickly. */
		for (;;)
			__asm__ volatile(".rept 500\n\tnop\n\t.endr");
	}
	while ((fd = reach()) < 0 && tries++ < 400)
		usleep(50000);
	if (fd < 0)
		fail("no agent answers");
	close(fd);
	find_agent();
	for (int at = 0; at < count;) {
		if (!strcmp(words[at], "time") && at + 5 < count) {
			time_(words[at + 1], atoi(words[at + 2]), atoi(words[at + 3]), words[at + 4], words[at + 5]);
			at += 6;
		} else if (!strcmp(words[at], "grow") && at + 2 < count) {
			grow(atoi(words[at + 1]), atoi(words[at + 2]));
			at += 3;
		} else
			fail("unknown word %s", words[at]);
	}
	dprintf(1, "bench-agent done\n");
	off();
}
