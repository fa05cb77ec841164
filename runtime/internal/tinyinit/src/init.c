/*
 * The program that bottle puts into containers, and beside them. It has no libc,
 * so that it runs in any image, and three modes:
 *
 *   init [-i FIFO] [--] CMD [ARG...]   as PID 1: runs CMD, forwards signals, reaps
 *   kill TOKEN               kills what has BOTTLE_EXEC_ID=TOKEN in its environment
 *   log FILE                 on the host: writes a container's output into FILE
 *
 * See tinyinit.go for what each promises, and internal/nolibc for how this file is built.
 */

#include "nolibc.h"

#define F_SETFL 4
#define LOCK_EX 2
#define LOCK_NB 4
#define POLLIN 1
#define FALLOC_FL_KEEP_SIZE 1
#define FALLOC_FL_PUNCH_HOLE 2
#define TIOCSPGRP 0x5410

/* The compiler may call these. */

void *memset(void *to, int value, ulong n)
{
	volatile uchar *p = to;
	while (n--)
		*p++ = (uchar)value;
	return to;
}

void *memcpy(void *to, const void *from, ulong n)
{
	volatile uchar *p = to;
	const uchar *q = from;
	while (n--)
		*p++ = *q++;
	return to;
}

/* --- small things ----------------------------------------------------------- */

static void complain(const char *what, const char *why)
{
	say("bottle-init: ");
	say(what);
	say(": ");
	say(why);
	say("\n");
}

static void nap(long milliseconds)
{
	long t[2] = {milliseconds / 1000, milliseconds % 1000 * 1000000};
	sys(SYS_nanosleep, t, 0, 0, 0);
}

/* --- init ------------------------------------------------------------------- */

/* exec runs a command, found as execvp finds it; it returns the reason it failed. */
static long exec(char **argv, char **envp)
{
	static char file[4096];
	const char *path = DEFAULT_PATH;
	const char *name = argv[0], *p;
	ulong size = length(name);
	long err, denied = 0;

	if (!size)
		return -ENOENT;
	for (p = name; *p; p++)
		if (*p == '/')
			return sys(SYS_execve, name, argv, envp, 0);
	for (char **e = envp; *e; e++) {
		p = *e;
		if (p[0] == 'P' && p[1] == 'A' && p[2] == 'T' && p[3] == 'H' && p[4] == '=') {
			path = p + 5;
			break;
		}
	}
	for (;;) {
		const char *end = path;
		ulong n;
		while (*end && *end != ':')
			end++;
		n = (ulong)(end - path);
		if (n + size + 2 <= sizeof file) {
			memcpy(file, path, n);
			if (n)
				file[n++] = '/';
			memcpy(file + n, name, size + 1);
			err = sys(SYS_execve, file, argv, envp, 0);
			if (err == -EACCES)
				denied = err;
			else if (err != -ENOENT && err != -ENOTDIR)
				return err;
		}
		if (!*end)
			break;
		path = end + 1;
	}
	return denied ? denied : -ENOENT;
}

static void child(const char *input, char **argv, char **envp) __attribute__((noreturn));
static void child(const char *input, char **argv, char **envp)
{
	int pid = (int)sys(SYS_getpid, 0, 0, 0, 0);
	ulong none = 0;
	long err;

	/*
	 * A group of its own, in the foreground of the terminal if there is one. All
	 * signals are blocked, so SIGTTOU does not stop it here.
	 */
	sys(SYS_setpgid, 0, 0, 0, 0);
	sys(SYS_ioctl, 0, TIOCSPGRP, &pid, 0);
	sys(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, sizeof none);
	if (input) {
		/* The lowest descriptor that is free is 0. It waits for somebody who writes. */
		sys(SYS_close, 0, 0, 0, 0);
		do
			err = sys(SYS_openat, AT_FDCWD, input, O_RDONLY, 0);
		while (err == -EINTR);
		if (err) {
			complain(input, "cannot be opened as the input");
			quit(EXIT_FAILED);
		}
	}
	err = exec(argv, envp);
	if (err == -ENOENT || err == -ENOTDIR) {
		complain(argv[0], "not found");
		quit(EXIT_NOT_FOUND);
	}
	complain(argv[0], err == -EACCES ? "permission denied"
			  : err == -E2BIG ? "the arguments are too long"
					  : "cannot be executed");
	quit(EXIT_NOT_EXECUTABLE);
}

static int init(char **argv, char **envp)
{
	const char *input = 0;
	ulong all = ~0ul;
	long main_pid;

	if (argv[0] && same(argv[0], "-i")) {
		if (!(input = argv[1]))
			return EXIT_FAILED;
		argv += 2;
	}
	if (argv[0] && same(argv[0], "--"))
		argv++;
	if (!argv[0])
		return EXIT_FAILED;
	/*
	 * Blocked signals wait to be taken, also those whose default PID 1 would
	 * ignore.
	 */
	sys(SYS_rt_sigprocmask, SIG_BLOCK, &all, 0, sizeof all);
	main_pid = sys(SYS_clone, SIGCHLD, 0, 0, 0);
	if (main_pid < 0) {
		complain(argv[0], "cannot make a process");
		return EXIT_FAILED;
	}
	if (!main_pid)
		child(input, argv, envp);
	for (;;) {
		long sig = sys(SYS_rt_sigtimedwait, &all, 0, 0, sizeof all);
		int status;
		long pid;

		if (sig < 0)
			continue;
		if (sig != SIGCHLD) {
			sys(SYS_kill, main_pid, sig, 0, 0);
			continue;
		}
		while ((pid = sys(SYS_wait4, -1, &status, WNOHANG, 0)) > 0) {
			if (pid != main_pid)
				continue;
			if (status & 0x7f)
				return 128 + (status & 0x7f);
			return status >> 8 & 0xff;
		}
	}
}

/* --- kill ------------------------------------------------------------------- */

struct process {
	int pid, parent, session;
	uchar stopped, marked;
};

/*
 * The container's limit of processes bounds the table; what does not fit is seen
 * in a later round, when others are gone.
 */
#define PROCESSES 65536
#define SESSIONS 1024

static struct process *processes;
static int count;
static int sessions[SESSIONS];
static int session_count;
static char buffer[65536];

/* proc_path makes "/proc/PID/NAME" in out, which must hold 64 bytes. */
static void proc_path(char *out, int pid, const char *name)
{
	char digits[12];
	int n = 0;
	memcpy(out, "/proc/", 6);
	out += 6;
	do {
		digits[n++] = (char)('0' + pid % 10);
		pid /= 10;
	} while (pid);
	while (n)
		*out++ = digits[--n];
	*out++ = '/';
	memcpy(out, name, length(name) + 1);
}

static long open_proc(int pid, const char *name)
{
	char path[64];
	proc_path(path, pid, name);
	return sys(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
}

/* has_variable reports whether a process was started with that variable. */
static int has_variable(int pid, const char *variable)
{
	ulong at = 0;
	int skip = 0, found = 0;
	long n, fd = open_proc(pid, "environ");
	if (fd < 0)
		return 0;
	while (!found && (n = sys(SYS_read, fd, buffer, sizeof buffer, 0)) > 0) {
		for (long i = 0; i < n; i++) {
			char c = buffer[i];
			if (!skip && variable[at] == c) {
				if (!c) {
					found = 1;
					break;
				}
				at++;
				continue;
			}
			skip = c != 0;
			at = 0;
		}
	}
	sys(SYS_close, fd, 0, 0, 0);
	return found;
}

static int number(const char **p)
{
	int n = 0;
	while (**p == ' ')
		(*p)++;
	while (**p >= '0' && **p <= '9')
		n = n * 10 + (*(*p)++ - '0');
	return n;
}

/* describe fills in what /proc/PID/stat says; it returns 0 for a zombie. */
static int describe(struct process *p)
{
	static char stat[1024];
	const char *s, *name_end = 0;
	long n, fd = open_proc(p->pid, "stat");
	if (fd < 0)
		return 0;
	n = sys(SYS_read, fd, stat, sizeof stat - 1, 0);
	sys(SYS_close, fd, 0, 0, 0);
	if (n <= 0)
		return 0;
	stat[n] = 0;
	/* The process chooses its name: the fields begin after the last ')'. */
	for (s = stat; *s; s++)
		if (*s == ')')
			name_end = s;
	if (!name_end || name_end[1] != ' ' || !name_end[2])
		return 0;
	s = name_end + 2;
	if (*s == 'Z' || *s == 'X' || *s == 'x')
		return 0;
	p->stopped = *s == 'T' || *s == 't';
	s++;
	p->parent = number(&s);
	number(&s); /* process group */
	p->session = number(&s);
	return 1;
}

static int known_session(int session)
{
	for (int i = 0; i < session_count; i++)
		if (sessions[i] == session)
			return 1;
	return 0;
}

/* scan fills the table with all processes but PID 1 and this one. */
static void scan(int self, const char *variable, int session_of_init)
{
	long n, dir = sys(SYS_openat, AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	static char entries[32768];

	count = 0;
	if (dir < 0)
		return;
	while ((n = sys(SYS_getdents64, dir, entries, sizeof entries, 0)) > 0) {
		for (long at = 0; at < n;) {
			/* struct linux_dirent64: ino, off, reclen at 16, type, name at 19 */
			const char *name = entries + at + 19;
			struct process *p = &processes[count];
			at += *(unsigned short *)(entries + at + 16);
			if (*name < '0' || *name > '9')
				continue;
			p->pid = number(&name);
			if (p->pid <= 1 || p->pid == self || count == PROCESSES - 1)
				continue;
			if (!describe(p))
				continue;
			p->marked = (uchar)has_variable(p->pid, variable);
			if (p->marked && p->session > 1 && p->session != session_of_init &&
			    !known_session(p->session) && session_count < SESSIONS)
				sessions[session_count++] = p->session;
			count++;
		}
	}
	sys(SYS_close, dir, 0, 0, 0);
}

/* spread marks the descendants and the sessions of those that are marked. */
static void spread(void)
{
	int changed;
	for (int i = 0; i < count; i++)
		if (known_session(processes[i].session))
			processes[i].marked = 1;
	do {
		changed = 0;
		for (int i = 0; i < count; i++) {
			if (processes[i].marked)
				continue;
			for (int j = 0; j < count; j++) {
				if (processes[j].marked && processes[j].pid == processes[i].parent) {
					processes[i].marked = 1;
					changed = 1;
					break;
				}
			}
		}
	} while (changed);
}

static int kill_all(const char *token)
{
	static const char prefix[] = "BOTTLE_EXEC_ID=";
	static char variable[512];
	struct process first = {.pid = 1};
	int self = (int)sys(SYS_getpid, 0, 0, 0, 0);
	long table;

	if (!*token || length(token) + sizeof prefix > sizeof variable)
		return EXIT_FAILED;
	memcpy(variable, prefix, sizeof prefix);
	memcpy(variable + sizeof prefix - 1, token, length(token) + 1);
	table = sys6(SYS_mmap, 0, PROCESSES * sizeof *processes, PROT_READ_WRITE, MAP_PRIVATE_ANON, -1, 0);
	if (table < 0 && table > -4096)
		return 1;
	processes = (struct process *)table;
	describe(&first);

	/*
	 * First all are stopped, until a scan finds none that runs: what is stopped
	 * makes no child that the scan would miss. Then all are killed. One that
	 * sleeps in the kernel does not stop; it is killed after some rounds all the
	 * same. Together at most some 10 s.
	 */
	for (int round = 0; round < 250; round++) {
		int marked = 0, running = 0;
		scan(self, variable, first.session);
		spread();
		for (int i = 0; i < count; i++) {
			if (!processes[i].marked)
				continue;
			marked++;
			if (!processes[i].stopped) {
				running++;
				sys(SYS_kill, processes[i].pid, SIGSTOP, 0, 0);
			}
		}
		if (!marked)
			return 0;
		if (!running || round >= 20)
			for (int i = 0; i < count; i++)
				if (processes[i].marked)
					sys(SYS_kill, processes[i].pid, SIGKILL, 0, 0);
		nap(round < 10 ? 1 : round < 30 ? 10 : 50);
	}
	return 1;
}

/* --- log -------------------------------------------------------------------- */

/*
 * The file is a row of records, each a header and its data. No record crosses a
 * multiple of LOG_CHUNK: what is left of a chunk is zeros. Beyond LOG_LIMIT the
 * oldest chunk is given back to the file system, so that a reader finds whole
 * chunks of holes first. Nothing that has been written moves.
 */
#define LOG_CHUNK (1 << 20)
#define LOG_LIMIT (64 << 20)
#define LOG_DATA 32768
#define LOG_STDOUT 1
#define LOG_STDERR 2
#define LOG_SYNC 3  /* all that was written before SIGUSR1 came is before this */
#define LOG_START 4 /* data: the logger's PID, 4 bytes */

struct record {
	ulong time; /* ns since the epoch */
	unsigned size;
	uchar kind, unused[3];
	char data[LOG_DATA];
};

#define LOG_HEADER (sizeof(struct record) - LOG_DATA)

static struct record record;
static long log_fd;
static ulong log_end, log_begin;

/* append writes the record; what the disk has no room for is lost. */
static void append(int kind, ulong size)
{
	long now[2] = {0, 0}, n;
	ulong total = LOG_HEADER + size, done = 0;

	sys(SYS_clock_gettime, 0, now, 0, 0);
	record.time = (ulong)now[0] * 1000000000 + (ulong)now[1];
	record.size = (unsigned)size;
	record.kind = (uchar)kind;
	if (log_end % LOG_CHUNK + total > LOG_CHUNK)
		log_end += LOG_CHUNK - log_end % LOG_CHUNK;
	/* The header goes last, so that a reader sees whole records alone. */
	while (done < size) {
		n = sys(SYS_pwrite64, log_fd, record.data + done, size - done, log_end + LOG_HEADER + done);
		if (n == -EINTR)
			continue;
		if (n <= 0)
			return;
		done += (ulong)n;
	}
	do
		n = sys(SYS_pwrite64, log_fd, &record, LOG_HEADER, log_end);
	while (n == -EINTR);
	if (n != LOG_HEADER)
		return;
	log_end += total;
	while (log_end - log_begin > LOG_LIMIT) {
		sys(SYS_fallocate, log_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, log_begin, LOG_CHUNK);
		log_begin += LOG_CHUNK;
	}
}

/* drain writes what the pipe holds; it returns 0 at the pipe's end. */
static int drain(int fd, int kind)
{
	for (;;) {
		long n = sys(SYS_read, fd, record.data, LOG_DATA, 0);
		if (n == -EINTR)
			continue;
		if (n == -EAGAIN)
			return 1;
		if (n <= 0)
			return 0;
		append(kind, (ulong)n);
	}
}

static int log_output(const char *file)
{
	/* What a container engine's shim hands a logger. */
	enum { OUT = 3, ERR = 4, READY = 5 };
	struct {
		int fd;
		short events, revents;
	} polls[3] = {{OUT, POLLIN, 0}, {ERR, POLLIN, 0}, {0, POLLIN, 0}};
	ulong all = ~0ul, wanted = 1ul << (SIGTERM - 1) | 1ul << (SIGUSR1 - 1);
	int pid = (int)sys(SYS_getpid, 0, 0, 0, 0);

	sys(SYS_rt_sigprocmask, SIG_BLOCK, &all, 0, sizeof all);
	/* Never made here: the container may be removed at this very moment. */
	log_fd = sys(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CLOEXEC, 0);
	if (log_fd < 0) {
		complain(file, "cannot be opened for logging");
		return 1;
	}
	if (sys(SYS_flock, log_fd, LOCK_EX | LOCK_NB, 0, 0)) {
		complain(file, "another logger writes it");
		return 1;
	}
	polls[2].fd = (int)sys(SYS_signalfd4, -1, &wanted, sizeof wanted, O_CLOEXEC | O_NONBLOCK);
	if (polls[2].fd < 0)
		return 1;
	sys(SYS_fcntl, OUT, F_SETFL, O_NONBLOCK, 0);
	sys(SYS_fcntl, ERR, F_SETFL, O_NONBLOCK, 0);
	memcpy(record.data, &pid, sizeof pid);
	append(LOG_START, sizeof pid);
	sys(SYS_close, READY, 0, 0, 0);

	while (polls[0].fd >= 0 || polls[1].fd >= 0) {
		unsigned info[32]; /* struct signalfd_siginfo */
		int sync = 0, end = 0;

		if (sys6(SYS_ppoll, (long)polls, 3, 0, 0, 0, 0) < 0)
			continue;
		if (polls[2].revents)
			while (sys(SYS_read, polls[2].fd, info, sizeof info, 0) == sizeof info) {
				sync |= info[0] == SIGUSR1;
				end |= info[0] == SIGTERM;
			}
		for (int i = 0; i < 2; i++)
			if (polls[i].fd >= 0 && (polls[i].revents || sync || end) && !drain(polls[i].fd, LOG_STDOUT + i))
				polls[i].fd = -1;
		if (sync)
			append(LOG_SYNC, 0);
		if (end)
			break;
	}
	return 0;
}

/* --- start ------------------------------------------------------------------ */

__attribute__((noreturn, used)) void start(long *stack)
{
	long argc = stack[0];
	char **argv = (char **)(stack + 1);
	char **envp = argv + argc + 1;

	if (argc >= 3 && same(argv[1], "init"))
		quit(init(argv + 2, envp));
	if (argc == 3 && same(argv[1], "kill"))
		quit(kill_all(argv[2]));
	if (argc == 3 && same(argv[1], "log"))
		quit(log_output(argv[2]));
	say("usage: bottle-init init [--] CMD [ARG...] | kill TOKEN | log FILE\n");
	quit(EXIT_FAILED);
}
