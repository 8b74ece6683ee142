/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next init of a simulated guest: asks for reports as other programs do, by
 * ioctl and by configfs, with structures of its own written from the kernel's
 * documentation. It says what came and judges nothing.
 */
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "say.h"

#define REPORTS "/sys/kernel/config/tsm/report"
#define GET_REPORT 0xc0205300UL
#define GET_DERIVED_KEY 0xc0205301UL
#define GET_EXT_REPORT 0xc0205302UL

struct guest_request {
	uint8_t version, pad[7];
	uint64_t request, response;
	uint32_t firmware_error, vmm_error;
};

struct report_request {
	uint8_t data[64];
	uint32_t vmpl, key_selection;
	uint8_t rest[24];
	uint64_t certificates;
	uint32_t certificates_bytes;
};

static uint8_t response[4000], certificates[0x5000];

static void hex(const char *name, const uint8_t *data, size_t size)
{
	static char text[2 * sizeof certificates + 1];

	for (size_t at = 0; at < size; at++)
		sprintf(text + 2 * at, "%02x", data[at]);
	text[2 * size] = 0;
	say("%s ", name);
	put(text, 2 * size);
	say("\n");
}

/* One ioctl: its errno, and both errors beside it. */
static void ask(int fd, const char *name, unsigned long number, struct guest_request *argument)
{
	memset(response, 0, sizeof response);
	errno = 0;
	int failed = ioctl(fd, number, argument) ? errno : 0;
	say("%s %s %x %x\n", name, failed ? strerrorname_np(failed) : "ok",
	    argument->firmware_error, argument->vmm_error);
}

static void ask_device(void)
{
	struct report_request request = { .vmpl = 0 };
	struct guest_request argument = { .version = 1 };
	uint64_t key_request[4] = { 0, 1 << 3, 0, 0 };
	struct stat status;
	int fd = open("/dev/sev-guest", O_RDWR | O_CLOEXEC);

	say("@@ device\n");
	if (fd < 0) {
		say("error %s\n", strerrorname_np(errno));
		return;
	}
	stat("/dev/sev-guest", &status);
	say("mode %o\n", status.st_mode);
	memset(request.data, 0xa5, sizeof request.data);
	argument.request = (uintptr_t)&request;
	argument.response = (uintptr_t)response;
	ask(fd, "report", GET_REPORT, &argument);
	hex("answer", response, 32 + 1184);
	ask(fd, "unknown", 0xc0205309UL, &argument);
	argument = (struct guest_request){ .version = 0, .request = (uintptr_t)&request,
					   .response = (uintptr_t)response };
	ask(fd, "version", GET_REPORT, &argument);
	argument = (struct guest_request){ .version = 1, .request = 0,
					   .response = (uintptr_t)response };
	ask(fd, "nowhere", GET_REPORT, &argument);
	argument = (struct guest_request){ .version = 1, .request = 16,
					   .response = (uintptr_t)response };
	ask(fd, "unmapped", GET_REPORT, &argument);
	argument = (struct guest_request){ .version = 1, .request = (uintptr_t)&request,
					   .response = (uintptr_t)response };
	request.vmpl = 9;
	ask(fd, "level", GET_REPORT, &argument);
	hex("level-answer", response, 8);
	request.vmpl = 0;

	/* Certificates: none, then as many as are needed. */
	argument = (struct guest_request){ .version = 1, .request = (uintptr_t)&request,
					   .response = (uintptr_t)response };
	ask(fd, "extended", GET_EXT_REPORT, &argument);
	say("needed %x\n", request.certificates_bytes);
	request.certificates = (uintptr_t)certificates;
	argument.vmm_error = argument.firmware_error = 0;
	ask(fd, "extended-again", GET_EXT_REPORT, &argument);
	hex("extended-answer", response, 32 + 1184);
	hex("certificates", certificates, request.certificates_bytes);
	request.certificates_bytes = 0x1001;
	argument.vmm_error = argument.firmware_error = 0;
	ask(fd, "unaligned", GET_EXT_REPORT, &argument);
	request.certificates_bytes = 0x5000;
	argument.vmm_error = argument.firmware_error = 0;
	ask(fd, "large", GET_EXT_REPORT, &argument);

	for (int turn = 0; turn < 2; turn++) {
		argument = (struct guest_request){ .version = 1,
						   .request = (uintptr_t)key_request,
						   .response = (uintptr_t)response };
		ask(fd, "key", GET_DERIVED_KEY, &argument);
		hex("key-answer", response, 64);
		key_request[1] |= 1;
	}
	ssize_t got = read(fd, response, 1);
	say("read %s\n", got < 0 ? strerrorname_np(errno) : "ok");
	close(fd);
	pid_t child = fork();
	if (!child) {
		if (setuid(1000) || open("/dev/sev-guest", O_RDWR) >= 0)
			_exit(1);
		say("other-user %s\n", strerrorname_np(errno));
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

static void put_value(const char *name, const void *data, size_t size)
{
	char path[200];

	snprintf(path, sizeof path, REPORTS "/%s", name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t done = fd < 0 ? -1 : write(fd, data, size);
	say("write %s %zu %s\n", name, size, done < 0 ? strerrorname_np(errno) : "ok");
	if (fd >= 0)
		close(fd);
}

static void get_value(const char *name)
{
	static uint8_t data[sizeof certificates];
	char path[200];
	size_t size = 0;
	ssize_t got = -1;

	snprintf(path, sizeof path, REPORTS "/%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		while ((got = read(fd, data + size, sizeof data - size)) > 0)
			size += (size_t)got;
		close(fd);
	}
	if (got < 0)
		say("read %s %s\n", name, strerrorname_np(errno));
	else {
		say("read %s ", name);
		hex("ok", data, size);
	}
}

static void make(const char *path)
{
	int failed = mkdir(path, 0755) ? errno : 0;

	say("make %s %s\n", path, failed ? strerrorname_np(failed) : "ok");
}

static void ask_tree(void)
{
	static const char *const names[] = { "auxblob", "generation", "inblob", "outblob",
					     "privlevel", "privlevel_floor", "provider" };
	uint8_t data[65];

	memset(data, 0x5a, sizeof data);
	say("@@ tree\n");
	make("/sys/kernel/config/other");
	make(REPORTS "/a");
	make(REPORTS "/a");
	for (size_t at = 0; at < sizeof names / sizeof *names; at++) {
		char path[200];
		struct stat status;

		snprintf(path, sizeof path, REPORTS "/a/%s", names[at]);
		if (!stat(path, &status))
			say("mode %s %o\n", names[at], status.st_mode);
	}
	get_value("a/provider");
	get_value("a/privlevel_floor");
	get_value("a/generation");
	get_value("a/outblob");
	get_value("a/inblob");
	put_value("a/privlevel", "7", 1);
	put_value("a/inblob", data, 65);
	get_value("a/generation");
	put_value("a/inblob", data, 63);
	get_value("a/generation");
	get_value("a/outblob");
	put_value("a/privlevel", "0\n", 2);
	put_value("a/inblob", data, 64);
	get_value("a/generation");
	get_value("a/outblob");
	get_value("a/auxblob");
	get_value("a/generation");
	put_value("a/provider", "x", 1);
	list(REPORTS);
	list(REPORTS "/a");
	say("@@ removed\n");
	say("remove %s\n", rmdir(REPORTS "/a") ? strerrorname_np(errno) : "ok");
	get_value("a/generation");
}

/* What was done, with its errno. */
static void told(const char *what, long result)
{
	int failed = errno;

	if (result < 0)
		say("%s %s\n", what, strerrorname_np(failed));
	else
		say("%s %ld\n", what, result);
}

static int open_value(const char *name, int flags)
{
	char path[200];

	snprintf(path, sizeof path, REPORTS "/%s", name);
	return open(path, flags | O_CLOEXEC);
}

/* The corners of the tree, where programs are careless: compared with the kernel's own. */
static void ask_corners(void)
{
	static const char *const levels[] = { "1", "3", "4", "-1", "+2", "0x2", "02", "010",
					      " 1", "1 ", "1\n\n", "\n", "a", "1a",
					      "4294967296", "99999999999999999999999" };
	static const char *const names[] = { "auxblob", "generation", "inblob", "outblob",
					     "privlevel", "privlevel_floor", "provider" };
	static uint8_t data[5000];
	char path[300], name[300];
	struct stat status;
	int fd, other;

	memset(data, '1', sizeof data);
	say("@@ corners\n");
	told("mkdir", mkdir(REPORTS "/c", 0700));
	told("mkdir", mkdir(REPORTS "/d", 0777));
	for (size_t at = 0; at < sizeof levels / sizeof *levels; at++) {
		put_value("c/privlevel", levels[at], strlen(levels[at]));
		get_value("c/generation");
	}
	put_value("c/privlevel", "1\0002", 3);
	put_value("c/privlevel", data, 4096);
	put_value("c/privlevel", data, 5000);
	get_value("c/generation");
	/* A blob counts when its file is closed, whatever it was written with. */
	memset(data, 0x5a, sizeof data);
	fd = open_value("c/inblob", O_WRONLY);
	told("open", fd >= 0);
	told("write", write(fd, data, 32));
	get_value("c/generation");
	told("write", write(fd, data, 32));
	get_value("c/generation");
	told("close", close(fd));
	get_value("c/generation");
	fd = open_value("c/inblob", O_WRONLY);
	told("close", close(fd));
	get_value("c/generation");
	fd = open_value("c/inblob", O_WRONLY | O_TRUNC);
	told("write", write(fd, data, 64));
	told("write", write(fd, data, 1));
	told("close", close(fd));
	get_value("c/generation");
	fd = open_value("c/inblob", O_WRONLY);
	told("pwrite", pwrite(fd, data, 8, 56));
	told("close", close(fd));
	get_value("c/generation");
	fd = open_value("c/inblob", O_WRONLY);
	told("pwrite", pwrite(fd, data, 8, 60));
	told("write", write(fd, data, 64));
	told("read", read(fd, data, 1));
	told("close", close(fd));
	get_value("c/generation");
	put_value("c/privlevel", "0", 1);
	put_value("c/inblob", data, 64);
	get_value("c/generation");
	fd = open_value("c/outblob", O_RDONLY);
	told("read", read(fd, data, 100));
	told("read", read(fd, data, 100));
	told("pread", pread(fd, data, 100, 1180));
	told("pread", pread(fd, data, 100, 1184));
	told("pread", pread(fd, data, 100, 5000));
	told("write", write(fd, data, 1));
	/* While it is read, something else is written. */
	memset(data, 0x33, 64);
	put_value("c/inblob", data, 64);
	told("pread", pread(fd, data, 0x60, 0));
	told("old", data[0x50]);
	other = open_value("c/outblob", O_RDONLY);
	told("read", read(other, data, 0x60));
	told("new", data[0x50]);
	told("close", close(fd) + close(other));
	other = open_value("c/outblob", O_RDONLY);
	told("pread", pread(other, data, 64, 0x50));
	told("new", data[0]);
	told("close", close(other));
	fd = open_value("c/generation", O_RDONLY);
	told("read", read(fd, data, 1));
	told("read", read(fd, data, 1));
	told("read", read(fd, data, 1));
	told("read", read(fd, data, 1));
	told("pread", pread(fd, data, 1, 9));
	told("close", close(fd));
	told("generation for writing", open_value("c/generation", O_WRONLY));
	told("inblob for both", open_value("c/inblob", O_RDWR));
	told("outblob for both", open_value("c/outblob", O_RDWR));
	told("privlevel for both", open_value("c/privlevel", O_RDWR));
	told("nothing", open_value("c/nothing", O_RDONLY));
	told("manifest", open_value("c/manifestblob", O_RDONLY));
	told("create", open_value("c/new", O_RDWR | O_CREAT));
	told("create", open_value("new", O_RDWR | O_CREAT));
	told("exclusive", open_value("c/inblob", O_WRONLY | O_CREAT | O_EXCL));
	told("directory", open_value("c/inblob", O_RDONLY | O_DIRECTORY));
	told("mkdir in it", mkdir(REPORTS "/c/e", 0700));
	told("mkdir twice", mkdir(REPORTS "/c", 0700));
	told("mkdir beside", mkdir("/sys/kernel/config/tsm/other", 0700));
	told("mkdir of an attribute", mkdir(REPORTS "/c/inblob", 0700));
	told("unlink", unlink(REPORTS "/c/inblob"));
	told("unlink it", unlink(REPORTS "/c"));
	told("rename", rename(REPORTS "/c", REPORTS "/f"));
	told("rename inside", rename(REPORTS "/c/inblob", REPORTS "/c/x"));
	told("symlink", symlink("x", REPORTS "/c/y"));
	told("symlink beside", symlink("/tmp", REPORTS "/y"));
	told("link", link(REPORTS "/c/inblob", REPORTS "/c/z"));
	told("rmdir of the reports", rmdir(REPORTS));
	told("rmdir of tsm", rmdir("/sys/kernel/config/tsm"));
	told("rmdir of an attribute", rmdir(REPORTS "/c/inblob"));
	told("rmdir of nothing", rmdir(REPORTS "/nothing"));
	told("truncate", truncate(REPORTS "/c/inblob", 0));
	told("truncate", truncate(REPORTS "/c/outblob", 10));
	told("access", access(REPORTS "/c/inblob", R_OK));
	told("access", access(REPORTS "/c/outblob", W_OK));
	for (size_t at = 0; at < sizeof names / sizeof *names; at++) {
		snprintf(path, sizeof path, REPORTS "/c/%s", names[at]);
		stat(path, &status);
		say("stat %s size %ld links %ld owner %d %d\n", names[at], (long)status.st_size,
		    (long)status.st_nlink, status.st_uid, status.st_gid);
	}
	stat(REPORTS "/c", &status);
	say("stat c mode %o owner %d %d\n", status.st_mode, status.st_uid, status.st_gid);
	stat(REPORTS "/d", &status);
	say("stat d mode %o\n", status.st_mode);
	stat(REPORTS, &status);
	say("stat report mode %o\n", status.st_mode);
	for (int size = 39; size <= 256; size += 72 + (size == 183)) {
		memset(name, 'n', sizeof name);
		name[size] = 0;
		snprintf(path, sizeof path, REPORTS "/%s", name);
		say("name of %d\n", size);
		told("mkdir", mkdir(path, 0700));
		told("rmdir", rmdir(path));
	}
	told("mkdir with a colon", mkdir(REPORTS "/a:b", 0700));
	told("rmdir", rmdir(REPORTS "/a:b"));
	/* One that is removed while a file of it is open. */
	fd = open_value("c/outblob", O_RDONLY);
	other = open_value("c/privlevel", O_WRONLY);
	told("rmdir", rmdir(REPORTS "/c"));
	told("read", read(fd, data, 10));
	told("write", write(other, "1", 1));
	told("close", close(fd) + close(other));
	told("gone", open_value("c/outblob", O_RDONLY));
	get_value("d/generation");
	/* Known to differ. */
	say("@@ loose\n");
	put_value("d/privlevel", "", 0);
	memset(data, 0x5a, 64);
	put_value("d/inblob", data, 64);
	fd = open_value("d/outblob", O_RDONLY);
	told("lseek", lseek(fd, 8, SEEK_SET));
	told("close", close(fd));
	told("rmdir", rmdir(REPORTS "/d"));
	told("rmdir", rmdir(REPORTS "/d"));
	list(REPORTS);
}

static void run_verb(const char *provider)
{
	say("@@ verb %s\n", provider);
	pid_t child = fork();
	int status = -1;

	if (!child) {
		char *words[] = { "troth", "report", "--nonce",
				  "00112233445566778899aabbccddeeff", "--format", "json",
				  "--provider", (char *)provider, NULL };
		char *nothing[] = { NULL };

		dup2(1, 2);
		execve("/run/troth/bin/troth", words, nothing);
		_exit(126);
	}
	waitpid(child, &status, 0);
	say("\n@@ status %s\n%d\n", provider, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* One plain request. */
static int failed_report(void)
{
	struct report_request request = { .vmpl = 0 };
	struct guest_request argument = { .version = 1, .request = (uintptr_t)&request,
					  .response = (uintptr_t)response };
	int fd = open("/dev/sev-guest", O_RDWR | O_CLOEXEC);
	int failed = fd < 0 ? errno : ioctl(fd, GET_REPORT, &argument) ? errno : 0;

	if (fd >= 0)
		close(fd);
	return failed;
}

/* Asks until the host does something to it, and looks what is left then. */
static void wait_for_the_host(void)
{
	uint8_t data[64] = { 1 };
	int failed = 0;

	say("@@ hostile\n");
	for (int turn = 0; turn < 100 && !failed; turn++) {
		usleep(100000);
		failed = failed_report();
	}
	say("first %s\n", failed ? strerrorname_np(failed) : "none");
	failed = failed_report();
	say("then %s\n", failed ? strerrorname_np(failed) : "none");
	make(REPORTS "/b");
	put_value("b/inblob", data, sizeof data);
	get_value("b/generation");
	get_value("b/outblob");
}

int main(int count, char **arguments)
{
	say("\n@@ marker " TOKEN "\n");
	if (count > 1 && !strcmp(arguments[1], "hostile")) {
		wait_for_the_host();
		goto end;
	}
	show("/proc/mounts");
	show("/proc/modules");
	show("/run/troth/state/boot.json");
	ask_device();
	ask_tree();
	ask_corners();
	run_verb("configfs-tsm");
	run_verb("sev-guest");
end:
	say("\n@@ done " TOKEN "\n");
	sync();
	usleep(20000);
	reboot(RB_POWER_OFF);
	return 1;
}
