/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A caller of the agent: init, workload or a program of a larger root. It says
 * what came and judges nothing. Its words are done in order:
 *   ask NAME METHOD PATH BODY   one request; "-" for no body. Prints status and body
 *   behind NAME METHOD PATH BODY   the same in a process of its own; "join" waits for it
 *   as USER GROUP               who asks from here on
 *   socket PATH                 whom
 *   wait SECONDS                until the socket answers
 *   step NAME                   say so, and wait until the host has answered on the port
 *   send SIGNAL                 to the agent; says its process id
 *   gone PID SECONDS            until the agent is another process (PID 0: the one last seen)
 *   proc NAME                   that file of the agent in /proc
 *   run PROGRAM ... ;           a program, its output and its status
 *   show FILE, list DIRECTORY, sleep SECONDS
 *   off                         switch the machine off
 *   exit N                      end with status N
 */
#include <features.h>
#ifndef __GLIBC__
#define strerrorname_np(number) strerror(number)
#endif
#include <grp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "say.h"
#include "step.h"

static const char *path = "/run/troth/attest.sock";
static int user = -1, group = -1, last_pid;

static int reach(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof address))
		return fd;
	int number = errno;
	if (fd >= 0)
		close(fd);
	errno = number;
	return -1;
}

/* One request in a child with the rights that were asked for; all of the answer at once. */
static int ask(const char *name, const char *method, const char *target, const char *body)
{
	pid_t child = fork();
	static char text[1 << 19];
	size_t size = 0;

	if (child)
		return child;
	if (group >= 0 && (setgroups(0, NULL) || setresgid(group, group, group)))
		_exit(1);
	if (user >= 0 && setresuid(user, user, user))
		_exit(1);
	int fd = reach();
	if (fd < 0) {
		say("@@ %s\nerror %s\n", name, strerrorname_np(errno));
		_exit(0);
	}
	if (!strcmp(body, "-"))
		dprintf(fd, "%s %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", method, target);
	else
		dprintf(fd, "%s %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n"
			"Content-Length: %zu\r\n\r\n%s", method, target, strlen(body), body);
	for (ssize_t got; (got = read(fd, text + size, sizeof text - 1 - size)) > 0;)
		size += (size_t)got;
	text[size] = 0;
	char *start = strstr(text, "\r\n\r\n");
	static char whole[(1 << 19) + 256];
	/* One write: nothing of others comes between. */
	int length = snprintf(whole, sizeof whole, "@@ %s\n%.3s\n%s\n", name,
			      size > 12 ? text + 9 : "end", start ? start + 4 : "");
	put(whole, (size_t)length);
	_exit(0);
}

static int agent_pid(void)
{
	DIR *proc = opendir("/proc");
	int found = 0;

	for (struct dirent *item; proc && (item = readdir(proc));) {
		char name[300], text[512];
		int pid = atoi(item->d_name), fd;
		ssize_t got;

		if (!pid)
			continue;
		snprintf(name, sizeof name, "/proc/%d/cmdline", pid);
		fd = open(name, O_RDONLY);
		if (fd < 0)
			continue;
		got = read(fd, text, sizeof text - 1);
		close(fd);
		for (ssize_t at = 0; at < got; at++)
			if (!text[at])
				text[at] = ' ';
		text[got > 0 ? got : 0] = 0;
		if (strstr(text, "-ISB -c") && strstr(text, "troth.attest.agent"))
			found = pid;
	}
	if (proc)
		closedir(proc);
	return found;
}

static void show_as(const char *file, const char *name)
{
	static char data[1 << 16];
	int fd = open(file, O_RDONLY);
	ssize_t got;

	say("@@ proc %s\n", name);
	while (fd >= 0 && (got = read(fd, data, sizeof data)) > 0)
		put(data, (size_t)got);
	close(fd);
	say("\n");
}

static void gone(int pid, int seconds)
{
	int now = 0;

	for (int tries = 0; tries < seconds * 20; tries++) {
		now = agent_pid();
		if (now && now != pid)
			break;
		usleep(50000);
	}
	say("@@ gone %d\n%s\n", pid, now && now != pid ? "another" : "the same, or none");
}

static void wait_for_socket(int seconds)
{
	int fd = -1;

	for (int tries = 0; tries < seconds * 20 && fd < 0; tries++) {
		fd = reach();
		if (fd < 0)
			usleep(50000);
	}
	say("@@ wait %s\n%s\n", path, fd < 0 ? strerrorname_np(errno) : "answers");
	close(fd);
}

static void run(char **words)
{
	int status = 0;

	say("@@ run %s %s\n", words[0], words[1] ? words[1] : "");
	pid_t child = fork();
	if (!child) {
		if (group >= 0 && (setgroups(0, NULL) || setresgid(group, group, group)))
			_exit(1);
		if (user >= 0 && setresuid(user, user, user))
			_exit(1);
		execv(words[0], words);
		say("error %s\n", strerrorname_np(errno));
		_exit(127);
	}
	waitpid(child, &status, 0);
	say("\n@@ status %s %s\n%d\n", words[0], words[1] ? words[1] : "", WEXITSTATUS(status));
}

int main(int count, char **words)
{
	pid_t behind = 0;

	if (getpid() == 1)
		say("\n@@ marker " TOKEN "\n");
	for (int at = 1; at < count; at++) {
		const char *word = words[at];
		if (!strcmp(word, "ask")) {
			waitpid(ask(words[at + 1], words[at + 2], words[at + 3], words[at + 4]), NULL, 0);
			at += 4;
		} else if (!strcmp(word, "behind")) {
			behind = ask(words[at + 1], words[at + 2], words[at + 3], words[at + 4]);
			at += 4;
		} else if (!strcmp(word, "join"))
			waitpid(behind, NULL, 0);
		else if (!strcmp(word, "as")) {
			user = atoi(words[++at]);
			group = atoi(words[++at]);
		} else if (!strcmp(word, "socket"))
			path = words[++at];
		else if (!strcmp(word, "wait"))
			wait_for_socket(atoi(words[++at]));
		else if (!strcmp(word, "step"))
			step(words[++at]);
		else if (!strcmp(word, "send")) {
			int number = atoi(words[++at]);
			last_pid = agent_pid();
			say("@@ send %d\n%d %s\n", number, last_pid,
			    !last_pid ? "nobody" : kill(last_pid, number) ? strerrorname_np(errno) : "sent");
		} else if (!strcmp(word, "proc")) {
			char name[300];
			snprintf(name, sizeof name, "/proc/%d/%s", agent_pid(), words[++at]);
			show_as(name, words[at]);
		} else if (!strcmp(word, "gone")) {
			int pid = atoi(words[++at]);
			gone(pid ? pid : last_pid, atoi(words[++at]));
		} else if (!strcmp(word, "run")) {
			char **first = &words[++at];
			while (at < count && strcmp(words[at], ";"))
				at++;
			words[at] = NULL;
			run(first);
		} else if (!strcmp(word, "show"))
			show(words[++at]);
		else if (!strcmp(word, "list"))
			list(words[++at]);
		else if (!strcmp(word, "sleep"))
			sleep((unsigned)atoi(words[++at]));
		else if (!strcmp(word, "off")) {
			say("\n@@ done " TOKEN "\n");
			sync();
			usleep(20000);
			reboot(RB_POWER_OFF);
		} else if (!strcmp(word, "exit")) {
			say("\n@@ done " TOKEN "\n");
			_exit(atoi(words[++at]));
		} else
			say("@@ unknown %s\n", word);
	}
	return 0;
}
