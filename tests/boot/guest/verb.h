/* SPDX-License-Identifier: Apache-2.0 */
/* A verb of the guest's own troth with one option and its value, and its exit status. */
static int run_words(const char *verb, const char *option, const char *value)
{
	say("@@ verb %s\n", verb);
	pid_t child = fork();
	int status = -1;

	if (!child) {
		char *words[] = { "troth", (char *)verb, (char *)option, (char *)value, NULL };
		char *nothing[] = { NULL };

		dup2(1, 2);
		execve("/run/troth/bin/troth", words, nothing);
		say("error %s\n", strerrorname_np(errno));
		_exit(126);
	}
	waitpid(child, &status, 0);
	status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	say("\n@@ status %s\n%d\n", verb, status);
	return status;
}

static void run_verb(const char *verb)
{
	run_words(verb, "--json", NULL);
}
