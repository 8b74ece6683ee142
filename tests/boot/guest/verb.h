/* SPDX-License-Identifier: Apache-2.0 */
/* A verb of the guest's own troth, as JSON, and its exit status. */
static void run_verb(const char *verb)
{
	say("@@ verb %s\n", verb);
	pid_t child = fork();
	int status = -1;

	if (!child) {
		char *words[] = { "troth", (char *)verb, "--json", NULL };
		char *nothing[] = { NULL };

		dup2(1, 2);
		execve("/run/troth/bin/troth", words, nothing);
		say("error %s\n", strerrorname_np(errno));
		_exit(126);
	}
	waitpid(child, &status, 0);
	say("\n@@ status %s\n%d\n", verb, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}
