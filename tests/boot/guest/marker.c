/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next init of the boot tests: says with TOKEN that it was reached, shows
 * what it finds, says that it is done, and powers off. It judges nothing: the
 * tests do. It must never touch what a test wants to see untouched.
 */
#include "say.h"
#include "verb.h"

int main(int count, char **arguments)
{
	static const char *const files[] = {
		"/proc/mounts", "/proc/self/status", "/proc/cmdline", "/proc/modules",
		"/sys/kernel/security/lockdown", "/proc/sys/kernel/sysrq",
		"/proc/sys/kernel/kexec_load_disabled", "/proc/sys/kernel/panic_on_oops",
		"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modules_disabled",
		"/proc/sys/kernel/osrelease", "/run/troth/event-log.jsonl", "/srv/models/weights",
		"/etc/hostname", "/proc/sys/kernel/hostname", "/run/troth/instance.json",
		"/proc/1/task/1/children", "/proc/net/route", "/proc/net/fib_trie", "/proc/net/if_inet6", "/proc/net/ipv6_route",
		"/proc/net/arp", "/proc/net/packet", "/proc/net/udp", "/proc/net/raw",
		"/sys/class/net/eth0/flags", "/sys/class/net/eth0/mtu",
		"/proc/sys/net/ipv4/conf/all/rp_filter", "/proc/sys/net/ipv4/conf/eth0/rp_filter",
		"/proc/sys/net/ipv4/conf/eth0/accept_redirects",
		"/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "/proc/sys/net/ipv6/conf/eth0/accept_ra",
	};
	static const char *const directories[] = {
		"/", "/run", "/run/troth", "/run/troth/bin", "/run/systemd", "/sys/firmware",
		"/sys/firmware/dmi", "/sys/firmware/qemu_fw_cfg", "/sys/firmware/efi", "/proc/self/fd",
		"/dev/mapper",
		"/opt/app", "/run/credentials",
	};
	static const char *const writes[] = {
		"/written", "/etc/written", "/var/written", "/opt/app/written", "/opt/app/config",
		"/srv/models/written", "/run/written", "/run/troth/runtime/written",
		"/run/troth/bin/written", "/run/troth/runtime/bin/troth", "/dev/mem",
	};
	static const char *const banks[] = { "sha1", "sha256", "sha384", "sha512" };
	static const int pcrs[] = { 11, 14, 15 };

	(void)count;
	say("\n@@ marker " TOKEN "\n");
	show_words("argv", arguments);
	show_words("environ", environ);
	for (size_t at = 0; at < sizeof files / sizeof *files; at++)
		show(files[at]);
	for (size_t at = 0; at < sizeof directories / sizeof *directories; at++)
		list(directories[at]);
	say("@@ writes\n");
	for (size_t at = 0; at < sizeof writes / sizeof *writes; at++)
		try_write(writes[at]);
	say("@@ pcrs\n");
	for (size_t bank = 0; bank < 4; bank++)
		for (size_t at = 0; at < 3; at++) {
			char path[80], value[160] = "";
			snprintf(path, sizeof path, "/sys/class/tpm/tpm0/pcr-%s/%d", banks[bank],
				 pcrs[at]);
			int fd = open(path, O_RDONLY);
			if (fd >= 0 && read(fd, value, sizeof value - 1) > 0)
				say("%s %d %s\n", banks[bank], pcrs[at], value);
			if (fd >= 0)
				close(fd);
		}
	run_verb("measurements");
	run_verb("status");
	list("/proc");
	sum("/opt/app/bulk");
	sum("/srv/late");
	say("\n@@ done " TOKEN "\n");
	sync();
	usleep(20000);
	reboot(RB_POWER_OFF);
	return 1;
}
