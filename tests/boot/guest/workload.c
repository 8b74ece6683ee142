/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervised workload of the boot tests. Its words are done in order:
 *   report       show who we are and what is around
 *   storm N      a child leaves N orphans that end at once; wait until all are reaped
 *   family       leave one process that ends politely on SIGTERM and one that ignores it
 *   signals      send PID 1 signals (as the same user) and say which come back
 *   deaf         ignore SIGTERM, ask PID 1 to stop, and make orphans for ever
 *   exit N       end with status N
 */
#include <sched.h>
#include "say.h"

static volatile sig_atomic_t heard[65];

static void hear(int number)
{
	heard[number] = 1;
}

static int zombies(int *all)
{
	DIR *proc = opendir("/proc");
	int found = 0;

	*all = 0;
	for (struct dirent *item; proc && (item = readdir(proc));) {
		char path[300], text[512];
		int pid = atoi(item->d_name), fd;
		ssize_t got;

		if (!pid)
			continue;
		snprintf(path, sizeof path, "/proc/%d/stat", pid);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			continue;
		got = read(fd, text, sizeof text - 1);
		close(fd);
		if (got <= 0)
			continue;
		text[got] = 0;
		char *end = strrchr(text, ')');
		(*all)++;
		found += end && end[2] == 'Z';
	}
	if (proc)
		closedir(proc);
	return found;
}

static void storm(int orphans)
{
	int made = 0, left = 0, all = 0, report[2];

	if (pipe(report))
		return;
	pid_t parent = fork();
	if (!parent) {
		for (int at = 0; at < orphans; at++) {
			pid_t child = fork();
			if (!child)
				_exit(at % 256);
			made += child > 0;
		}
		if (write(report[1], &made, sizeof made) < 0)
			_exit(1);
		_exit(0);
	}
	if (read(report[0], &made, sizeof made) != sizeof made)
		made = -1;
	waitpid(parent, NULL, 0);
	for (int tries = 0; tries < 300 && (left = zombies(&all)); tries++)
		usleep(100000);
	say("@@ storm\nmade %d\nzombies %d\n", made, left);
}

static void family(void)
{
	int ready[2];
	char byte;

	if (pipe(ready))
		return;
	for (int deaf = 0; deaf < 2; deaf++) {
		if (fork()) {
			if (read(ready[0], &byte, 1) != 1)
				say("@@ family-failed\n");
			continue;
		}
		setsid();
		signal(SIGTERM, deaf ? SIG_IGN : hear);
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;) {
			usleep(50000);
			if (heard[SIGTERM]) {
				say("@@ polite " TOKEN "\n");
				_exit(0);
			}
		}
	}
	say("@@ family\n");
}

static int wait_for(int number)
{
	for (int tries = 0; tries < 100 && !heard[number]; tries++)
		usleep(50000);
	return heard[number];
}

static void signals(void)
{
	static const int numbers[] = { SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH };

	say("@@ signals\n");
	for (size_t at = 0; at < 4; at++) {
		signal(numbers[at], hear);
		int sent = kill(1, numbers[at]);
		say("%d %s\n", numbers[at], sent ? strerrorname_np(errno)
					: wait_for(numbers[at]) ? "came-back" : "lost");
	}
	/* A request to stop reaches us as SIGTERM, whatever it was. */
	signal(SIGTERM, hear);
	int sent = kill(1, SIGPWR);
	say("%d %s\n", SIGPWR, sent ? strerrorname_np(errno)
			      : wait_for(SIGTERM) ? "came-as-term" : "lost");
}

static void report(char **arguments)
{
	static const char *const files[] = { "/proc/self/status", "/proc/mounts",
		"/proc/1/cmdline", "/run/troth/event-log.jsonl", "/run/troth/state/boot.json",
		"/proc/sys/kernel/sysrq", "/sys/kernel/security/lockdown", "/proc/net/route",
		"/proc/net/if_inet6", "/proc/net/packet", "/sys/class/net/eth0/flags",
		"/etc/resolv.conf" };
	static const char *const directories[] = { "/", "/run/troth", "/modules", "/proc/self/fd",
		"/dev", "/sys/class/net" };
	static const char *const writes[] = { "/written", "/etc/written", "/tmp/written",
		"/dev/shm/written", "/run/written", "/app/written", "/opt/app/written",
		"/run/troth/event-log.jsonl", "/proc/sysrq-trigger", "/dev/kmsg",
		"/runtime/bin/troth", "/dev/tpm0" };

	show_words("argv", arguments);
	show_words("environ", environ);
	for (size_t at = 0; at < sizeof files / sizeof *files; at++)
		show(files[at]);
	for (size_t at = 0; at < sizeof directories / sizeof *directories; at++)
		list(directories[at]);
	say("@@ writes\n");
	for (size_t at = 0; at < sizeof writes / sizeof *writes; at++)
		try_write(writes[at]);
	say("@@ identity\npid %d sid %d uid %d gid %d groups %d kill1 %s loopback %s userns %s\n", getpid(),
	    getsid(0), getuid(), getgid(), getgroups(0, NULL),
	    kill(1, 0) ? strerrorname_np(errno) : "ok",
	    access("/sys/class/net/lo", F_OK) ? "absent" : "there",
	    unshare(CLONE_NEWUSER) ? strerrorname_np(errno) : "ok");
}

int main(int count, char **arguments)
{
	say("\n@@ marker " TOKEN "\n");
	for (int at = 1; at < count; at++) {
		const char *word = arguments[at];
		if (!strcmp(word, "report"))
			report(arguments);
		else if (!strcmp(word, "storm"))
			storm(atoi(arguments[++at]));
		else if (!strcmp(word, "family"))
			family();
		else if (!strcmp(word, "signals"))
			signals();
		else if (!strcmp(word, "deaf")) {
			signal(SIGTERM, SIG_IGN);
			say("@@ deaf %d\n", kill(1, SIGINT));
			for (;;) {
				/* Orphans without end: PID 1 always has somebody to reap. */
				pid_t parent = fork();
				if (!parent) {
					fork();
					_exit(0);
				}
				waitpid(parent, NULL, 0);
			}
		} else if (!strcmp(word, "exit")) {
			say("@@ done " TOKEN "\n");
			_exit(atoi(arguments[++at]));
		}
	}
	return 99;
}
