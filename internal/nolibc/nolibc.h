/*
 * What bottle's programs without a libc share: the start of the process, system
 * calls with the numbers that they use, and a few words about strings. A program
 * includes it once and defines start(), which gets the stack as the kernel made it
 * (argc, argv, 0, environment, 0) and does not return.
 */

typedef unsigned long ulong;
typedef unsigned char uchar;

#if defined(__x86_64__)

#define SYS_read 0
#define SYS_write 1
#define SYS_close 3
#define SYS_mmap 9
#define SYS_rt_sigprocmask 14
#define SYS_ioctl 16
#define SYS_pwrite64 18
#define SYS_nanosleep 35
#define SYS_getpid 39
#define SYS_clone 56
#define SYS_execve 59
#define SYS_exit 60
#define SYS_wait4 61
#define SYS_kill 62
#define SYS_fcntl 72
#define SYS_flock 73
#define SYS_setpgid 109
#define SYS_rt_sigtimedwait 128
#define SYS_getdents64 217
#define SYS_clock_gettime 228
#define SYS_openat 257
#define SYS_ppoll 271
#define SYS_fallocate 285
#define SYS_signalfd4 289
#define O_DIRECTORY 0x10000
#define O_NOFOLLOW 0x20000

static long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

__asm__(".globl _start\n"
	"_start:\n"
	"	xor %ebp, %ebp\n"
	"	mov %rsp, %rdi\n"
	"	and $-16, %rsp\n"
	"	call start\n");

#elif defined(__aarch64__)

#define SYS_fcntl 25
#define SYS_ioctl 29
#define SYS_flock 32
#define SYS_fallocate 47
#define SYS_openat 56
#define SYS_close 57
#define SYS_getdents64 61
#define SYS_read 63
#define SYS_write 64
#define SYS_pwrite64 68
#define SYS_ppoll 73
#define SYS_signalfd4 74
#define SYS_exit 93
#define SYS_nanosleep 101
#define SYS_clock_gettime 113
#define SYS_kill 129
#define SYS_rt_sigprocmask 135
#define SYS_rt_sigtimedwait 137
#define SYS_setpgid 154
#define SYS_getpid 172
#define SYS_clone 220
#define SYS_execve 221
#define SYS_mmap 222
#define SYS_wait4 260
#define O_DIRECTORY 0x4000
#define O_NOFOLLOW 0x8000

static long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;
	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}

__asm__(".globl _start\n"
	"_start:\n"
	"	mov x29, #0\n"
	"	mov x30, #0\n"
	"	mov x0, sp\n"
	"	bl start\n");

#else
#error "no system calls for this architecture"
#endif

/* A system call gives a result, or an error's number below zero. */
#define sys(n, a, b, c, d) sys6((n), (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

#define ENOENT 2
#define EINTR 4
#define E2BIG 7
#define ENOEXEC 8
#define ECHILD 10
#define EAGAIN 11
#define EACCES 13
#define ENOTDIR 20

#define SIGHUP 1
#define SIGINT 2
#define SIGQUIT 3
#define SIGKILL 9
#define SIGUSR1 10
#define SIGTERM 15
#define SIGCHLD 17
#define SIGSTOP 19
#define SIGPWR 30
#define SIG_BLOCK 0
#define SIG_SETMASK 2
#define WNOHANG 1

#define AT_FDCWD -100
#define O_RDONLY 0
#define O_WRONLY 1
#define O_CREAT 0x40
#define O_TRUNC 0x200
#define O_NONBLOCK 0x800
#define O_CLOEXEC 0x80000

#define PROT_READ_WRITE 3
#define MAP_PRIVATE_ANON 0x22

/* Where a command is looked for if the environment has no PATH. */
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* The statuses that the shells gave a meaning. */
#define EXIT_FAILED 125 /* the program itself */
#define EXIT_NOT_EXECUTABLE 126
#define EXIT_NOT_FOUND 127

static __attribute__((noreturn)) void quit(int status)
{
	for (;;)
		sys(SYS_exit, status, 0, 0, 0);
}

static ulong length(const char *s)
{
	ulong n = 0;
	while (s[n])
		n++;
	return n;
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static void say(const char *s) { sys(SYS_write, 2, s, length(s), 0); }
