/*
 * The program that bottle puts into an agent's container. It has no libc, so that
 * it runs in any image.
 *
 *   idle                  does nothing until it is told to end
 *   idle FILE             does what put does, says so, and then the same
 *   put FILE              writes standard input to FILE, for its own user alone
 *   share FILE            writes standard input to FILE, for everybody to read
 *   get FILE              writes FILE to standard output
 *   env FILE CMD ARG...   runs CMD with the variables of FILE
 *   tty FILE CMD ARG...   the same, once the terminal has a size
 *   end SECONDS           tells the user's processes to end, and waits for them
 *
 * See inside.go for what each promises, and internal/nolibc for how this file is built.
 */

#include "nolibc.h"

/* The file of variables may be this large; inside.go checks it beforehand. */
#define MAX_FILE (4L << 20)
/* A path that is longer is not tried. */
#define MAX_PATH 4096

static __attribute__((noreturn)) void fail(int status, const char *what, const char *why)
{
	say("bottle: ");
	say(what);
	say(": ");
	say(why);
	say("\n");
	quit(status);
}

/* Anonymous memory; never freed, since the program ends or becomes another. */
static char *take(ulong size)
{
	long p = sys6(SYS_mmap, 0, (long)size, PROT_READ_WRITE, MAP_PRIVATE_ANON, -1, 0);
	if (p < 0 && p > -4096)
		fail(EXIT_FAILED, "memory", "there is not enough");
	return (char *)p;
}

/* --- idle ------------------------------------------------------------------ */

/* Signals are waited for and not caught: as PID 1 it would not get them otherwise. */
static void idle(void)
{
	ulong all = ~0UL;
	int status;

	sys(SYS_rt_sigprocmask, SIG_BLOCK, &all, 0, sizeof all);
	for (;;) {
		long sig = sys(SYS_rt_sigtimedwait, &all, 0, 0, sizeof all);
		switch (sig) {
		case SIGTERM:
		case SIGINT:
		case SIGQUIT:
		case SIGHUP:
		case SIGPWR:
			quit(0);
		}
		while (sys(SYS_wait4, -1, &status, WNOHANG, 0) > 0)
			;
	}
}

/* --- put ------------------------------------------------------------------- */

static void write_all(const char *path, long fd, const char *buf, long n)
{
	long done = 0;
	while (done < n) {
		long w = sys(SYS_write, fd, buf + done, n - done, 0);
		if (w == -EINTR)
			continue;
		if (w <= 0)
			fail(EXIT_FAILED, path, "it cannot be written");
		done += w;
	}
}

/* Standard input, to its end, in a file. */
static void keep(const char *path, int mode)
{
	long n, fd = sys6(SYS_openat, AT_FDCWD, (long)path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode, 0, 0);
	char *buf = take(65536);

	if (fd < 0)
		fail(EXIT_FAILED, path, "the file cannot be made");
	while ((n = sys(SYS_read, 0, buf, 65536, 0)) != 0) {
		if (n == -EINTR)
			continue;
		if (n < 0)
			fail(EXIT_FAILED, path, "standard input cannot be read");
		write_all(path, fd, buf, n);
	}
	sys(SYS_close, fd, 0, 0, 0);
}

/* --- env ------------------------------------------------------------------- */

/* The file's content with a NUL after it; a file that is not there is empty. */
static char *contents(const char *path, ulong *size)
{
	long n, fd = sys(SYS_openat, AT_FDCWD, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
	char *buf;

	*size = 0;
	/* Another user of the container may not read it, and goes without. */
	if (fd == -ENOENT || fd == -EACCES || fd == -ENOTDIR)
		return take(1);
	if (fd < 0)
		fail(EXIT_FAILED, path, "the file cannot be opened");
	buf = take(MAX_FILE + 1);
	while ((n = sys(SYS_read, fd, buf + *size, MAX_FILE - *size, 0)) != 0) {
		if (n == -EINTR)
			continue;
		if (n < 0)
			fail(EXIT_FAILED, path, "the file cannot be read");
		*size += n;
	}
	sys(SYS_close, fd, 0, 0, 0);
	return buf;
}

/* Do two "NAME=value" strings have one name? */
static int same_name(const char *a, const char *b)
{
	while (*a && *a != '=' && *a == *b)
		a++, b++;
	return (*a == '=' || !*a) && (*b == '=' || !*b);
}

/* env with the variables of the file, which replace those of the same name. */
static char **merged(char **env, char *file, ulong size)
{
	ulong have = 0, more = 0, n = 0, i;
	char *p, **out;

	while (env[have])
		have++;
	for (p = file; p < file + size; p += length(p) + 1)
		more++;
	out = (char **)take((have + more + 1) * sizeof *out);
	for (i = 0; i < have; i++)
		out[n++] = env[i];
	for (p = file; p < file + size; p += length(p) + 1) {
		for (i = 0; i < n; i++)
			if (same_name(out[i], p))
				break;
		out[i] = p;
		if (i == n)
			n++;
	}
	out[n] = 0;
	return out;
}

static const char *lookup(char **env, const char *name)
{
	for (; *env; env++)
		if (same_name(*env, name))
			return *env + length(name) + 1;
	return 0;
}

static void run(char **argv, char **env)
{
	const char *cmd = argv[0], *path = lookup(env, "PATH");
	int slash = 0, denied = 0;
	char try[MAX_PATH];
	ulong i, len = length(cmd);
	long err;

	for (i = 0; i < len; i++)
		slash |= cmd[i] == '/';
	if (slash) {
		err = sys(SYS_execve, cmd, argv, env, 0);
		if (err == -ENOENT || err == -ENOTDIR)
			fail(EXIT_NOT_FOUND, cmd, "there is no such file, or no interpreter for it");
		fail(EXIT_NOT_EXECUTABLE, cmd, err == -ENOEXEC ? "it is not a program" : "it cannot be executed");
	}
	if (!path)
		path = DEFAULT_PATH;
	while (len) {
		ulong n = 0, at;
		while (path[n] && path[n] != ':')
			n++;
		/* An empty element means the working directory. */
		if (n + len + 2 <= sizeof try) {
			for (i = 0; i < n; i++)
				try[i] = path[i];
			at = n;
			if (n)
				try[at++] = '/';
			for (i = 0; i <= len; i++)
				try[at + i] = cmd[i];
			err = sys(SYS_execve, try, argv, env, 0);
			if (err == -ENOEXEC)
				fail(EXIT_NOT_EXECUTABLE, cmd, "it is not a program");
			if (err != -ENOENT && err != -ENOTDIR)
				denied = 1;
		}
		if (!path[n])
			break;
		path += n + 1;
	}
	if (denied)
		fail(EXIT_NOT_EXECUTABLE, cmd, "it cannot be executed");
	fail(EXIT_NOT_FOUND, cmd, "there is no such command in the bottle");
}

/* Some engines set a terminal's size only after the program has begun, which then
 * sees a terminal of nothing by nothing: wait a moment. */
static void await_size(void)
{
	struct { unsigned short rows, cols, x, y; } size = { 0, 0, 0, 0 };
	struct { long sec, nsec; } pause = { 0, 5000000 };
	int i;

	for (i = 0; i < 200; i++) {
		if (sys(SYS_ioctl, 0, 0x5413 /* TIOCGWINSZ */, &size, 0) < 0 || size.rows)
			return;
		sys(SYS_nanosleep, &pause, 0, 0, 0);
	}
}

/* --- end ------------------------------------------------------------------- */

/* How often it is looked whether processes have ended, in a second. */
#define LOOKS 50

/* The first bytes of a file of a process in /proc; what cannot be read is empty. */
static long peek(const char *pid, const char *name, char *buf, long size)
{
	char path[64] = "/proc/";
	ulong at = 6;
	long n, fd;

	while (*pid && at < 40)
		path[at++] = *pid++;
	while (*name)
		path[at++] = *name++;
	path[at] = 0;
	fd = sys(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	n = sys(SYS_read, fd, buf, size - 1, 0);
	sys(SYS_close, fd, 0, 0, 0);
	if (n < 0)
		n = 0;
	buf[n] = 0;
	return n;
}

/* Is a process one that shall end? Not what idles, and not what has ended already. */
static int counts(const char *pid)
{
	static const char program[] = "/inside";
	char buf[512];
	const char *arg = buf;
	long i, n = peek(pid, "/stat", buf, sizeof buf);

	/* The state comes after the name, which may hold anything. */
	for (i = n - 3; i > 0; i--)
		if (buf[i] == ')') {
			if (buf[i + 2] == 'Z' || buf[i + 2] == 'X')
				return 0;
			break;
		}
	/* Its command line begins with "…/inside", "idle". */
	n = peek(pid, "/cmdline", buf, sizeof buf);
	i = (long)length(arg) - (long)length(program);
	return !(i >= 0 && same(arg + i, program) && i + (long)sizeof program < n && same(arg + i + sizeof program, "idle"));
}

/* Sends a signal, if it is none only asks, to all processes of the user but for PID 1,
 * this one and the one that idles; returns how many there are. */
static long signal_all(long sig)
{
	static char buf[32768];
	long n, at, count = 0, self = sys(SYS_getpid, 0, 0, 0, 0);
	long fd = sys(SYS_openat, AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

	if (fd < 0)
		fail(EXIT_FAILED, "/proc", "it cannot be read");
	while ((n = sys(SYS_getdents64, fd, buf, sizeof buf, 0)) > 0)
		for (at = 0; at < n; at += *(unsigned short *)(buf + at + 16)) {
			const char *name = buf + at + 19, *p;
			long pid = 0;

			for (p = name; *p >= '0' && *p <= '9' && pid < 100000000; p++)
				pid = pid * 10 + (*p - '0');
			if (*p || pid <= 1 || pid == self || !counts(name))
				continue;
			if (sys(SYS_kill, pid, sig, 0, 0) == 0)
				count++;
		}
	sys(SYS_close, fd, 0, 0, 0);
	return count;
}

static __attribute__((noreturn)) void end(const char *seconds)
{
	struct { long sec, nsec; } pause = { 0, 1000000000 / LOOKS };
	long left = 0;

	for (; *seconds >= '0' && *seconds <= '9' && left < 1000000; seconds++)
		left = left * 10 + (*seconds - '0');
	if (*seconds)
		fail(EXIT_FAILED, "end", "the seconds are no number");
	if (!signal_all(SIGTERM))
		quit(0);
	for (left *= LOOKS; left > 0; left--) {
		sys(SYS_nanosleep, &pause, 0, 0, 0);
		if (!signal_all(0))
			quit(0);
	}
	quit(1);
}

__attribute__((noreturn, used)) void start(long *stack)
{
	long argc = stack[0];
	char **argv = (char **)(stack + 1), **env = argv + argc + 1;
	ulong size;

	if (argc == 2 && same(argv[1], "idle"))
		idle();
	if (argc == 3 && same(argv[1], "idle")) {
		keep(argv[2], 0600);
		say("bottle: the variables are here\n");
		idle();
	}
	if (argc == 3 && same(argv[1], "put")) {
		keep(argv[2], 0600);
		quit(0);
	}
	if (argc == 3 && same(argv[1], "share")) {
		keep(argv[2], 0644);
		quit(0);
	}
	if (argc == 3 && same(argv[1], "get")) {
		char *file = contents(argv[2], &size);
		write_all(argv[2], 1, file, size);
		quit(0);
	}
	if (argc == 3 && same(argv[1], "end"))
		end(argv[2]);
	if (argc >= 4 && same(argv[1], "tty"))
		await_size();
	if (argc >= 4 && (same(argv[1], "env") || same(argv[1], "tty"))) {
		char *file = contents(argv[2], &size);
		run(argv + 3, merged(env, file, size));
	}
	fail(EXIT_FAILED, "usage", "idle [FILE] | put|share|get FILE | env|tty FILE CMD [ARG...] | end SECONDS");
}
