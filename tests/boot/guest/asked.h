/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the host chose this word of the command line. */
static int asked(const char *word)
{
	static char words[4096];
	int fd = open("/proc/cmdline", O_RDONLY);
	ssize_t got = read(fd, words, sizeof words - 1);

	close(fd);
	return got > 0 && strstr(words, word);
}
