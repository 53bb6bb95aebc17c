/* Makes one system call of a program fail, or counts them: inject PROGRAM COUNTS WHICH ERRNO -- COMMAND...
 *
 * The kernel asks this process about each call of the list that COMMAND, or what it starts, makes (seccomp(2),
 * SECCOMP_RET_USER_NOTIF). A call counts if the process that makes it runs PROGRAM, so those of other programs, in steps
 * too, go through. WHICH is `role:call:number`, as in the file COUNTS that is written at the end, or `-`.
 * A role is the process's name where that is one of the two of the sandbox, and `kiln` otherwise.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CALL(name) {SYS_##name, #name},
static const struct { int number; const char *name; } calls[] = {
    CALL(openat) CALL(openat2) CALL(read) CALL(pread64) CALL(write) CALL(pwrite64) CALL(writev) CALL(mkdirat) CALL(unlinkat)
    CALL(renameat) CALL(renameat2) CALL(linkat) CALL(symlinkat) CALL(mknodat) CALL(ftruncate) CALL(fallocate) CALL(fsync)
    CALL(fdatasync) CALL(syncfs) CALL(fchmod) CALL(fchmodat) CALL(fchown) CALL(fchownat) CALL(utimensat) CALL(statx)
    CALL(newfstatat) CALL(getdents64) CALL(flock) CALL(copy_file_range) CALL(fsetxattr) CALL(setxattr) CALL(lsetxattr)
    CALL(getxattr) CALL(lgetxattr) CALL(llistxattr) CALL(socketpair) CALL(sendmsg) CALL(recvmsg) CALL(pipe2) CALL(clone3)
    CALL(clone) CALL(memfd_create) CALL(mount) CALL(fsopen) CALL(fsconfig) CALL(fsmount) CALL(move_mount) CALL(open_tree)
    CALL(mount_setattr) CALL(pivot_root) CALL(umount2) CALL(chdir) CALL(fchdir) CALL(sethostname) CALL(setgroups)
    CALL(setresuid) CALL(setresgid) CALL(capset) CALL(prlimit64) CALL(seccomp) CALL(bpf) CALL(close_range) CALL(execve)
    CALL(dup3) CALL(setsid) CALL(epoll_create1) CALL(eventfd2) CALL(signalfd4) CALL(poll) CALL(ppoll) CALL(socket)
    CALL(bind) CALL(setns) CALL(unshare) CALL(ioctl) CALL(sync_file_range) CALL(readlinkat) CALL(statfs) CALL(fstatfs)
    CALL(splice) CALL(sendfile) CALL(getrandom)
#ifdef SYS_rename
    CALL(open) CALL(rename) CALL(mkdir) CALL(rmdir) CALL(unlink) CALL(link) CALL(symlink) CALL(chmod) CALL(chown) CALL(readlink)
    CALL(stat) CALL(lstat)
#endif
};
#define CALLS (sizeof calls / sizeof *calls)
enum { KILN, ZYGOTE, INIT, ROLES };
static const char *roles[ROLES] = {"kiln", "kiln-zygote", "kiln-init"};
static unsigned long seen[ROLES][CALLS];

struct shared { volatile int listener; };

static void fail(const char *what) { perror(what); exit(125); }

/* The child: has the filter, and becomes the command. */
static int follow(void *given) {
    void **arguments = given;
    struct shared *shared = arguments[0];
    char **command = arguments[1];
    struct sock_filter code[CALLS + 4];
    size_t at = 0;
    code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < CALLS; i++)
        code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, CALLS - i, 0);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {at, code};
    setpgid(0, 0);
    int listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    shared->listener = listener < 0 ? -1 : listener;
    if (listener < 0) _exit(125);
    execve(command[0], command, environ);
    _exit(125);
}

/* Which of the program's processes this is, or -1. */
static int role_of(pid_t process, const char *program) {
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/exe", process);
    ssize_t length = readlink(path, text, sizeof text - 1);
    if (length < 0) return -1;
    text[length] = 0;
    if (strcmp(text, program)) return -1;
    snprintf(path, sizeof path, "/proc/%d/comm", process);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    close(fd);
    text[length > 0 ? length - 1 : 0] = 0;
    for (int role = ZYGOTE; role < ROLES; role++)
        if (!strcmp(text, roles[role])) return role;
    return KILN;
}

/* What the kernel never answers so: eventfds in non-blocking mode are neither interrupted nor on a disk. */
static int is_eventfd(pid_t process, int fd) {
    char path[64], text[64] = "";
    snprintf(path, sizeof path, "/proc/%d/fd/%d", process, fd);
    return readlink(path, text, sizeof text - 1) > 0 && !strcmp(text, "anon_inode:[eventfd]");
}

static void write_counts(const char *path) {
    FILE *file = fopen(path, "w");
    if (!file) fail(path);
    for (int role = 0; role < ROLES; role++)
        for (size_t i = 0; i < CALLS; i++)
            if (seen[role][i]) fprintf(file, "%s %s %lu\n", roles[role], calls[i].name, seen[role][i]);
    fclose(file);
}

int main(int count, char **arguments) {
    if (count < 7) return 2;
    const char *program = arguments[1], *which = arguments[3];
    int error = atoi(arguments[4]), chosen_role = -1, chosen_call = -1, done = 0;
    unsigned long chosen = 0;
    for (int role = 0; role < ROLES; role++)
        for (size_t i = 0; i < CALLS; i++) {
            char start[64];
            int length = snprintf(start, sizeof start, "%s:%s:", roles[role], calls[i].name);
            if (!strncmp(which, start, length)) chosen_role = role, chosen_call = i, chosen = strtoul(which + length, 0, 10);
        }
    struct shared *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    void *given[] = {shared, arguments + 6};
    static char stack[1 << 16];
    /* One table of descriptors until execve, so that the listener is this process's too. */
    pid_t child = clone(follow, stack + sizeof stack, CLONE_FILES | SIGCHLD, given);
    if (child < 0) fail("clone");
    while (!shared->listener) usleep(100);
    int listener = shared->listener, status = 125 << 8;
    if (listener < 0) fail("seccomp");
    for (;;) {
        struct pollfd wait = {listener, POLLIN, 0};
        int ready = poll(&wait, 1, 60000);
        if (ready == 0 || (ready > 0 && wait.revents & POLLHUP)) break;
        struct seccomp_notif asked;
        memset(&asked, 0, sizeof asked);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) < 0) continue;
        struct seccomp_notif_resp answer = {.id = asked.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        int role = role_of(asked.pid, program);
        if (asked.data.nr <= SYS_write && is_eventfd(asked.pid, asked.data.args[0])) role = -1;
        for (size_t i = 0; role >= 0 && i < CALLS; i++)
            if (calls[i].number == asked.data.nr) {
                seen[role][i]++;
                if (!done && role == chosen_role && (int)i == chosen_call && seen[role][i] == chosen)
                    answer.flags = 0, answer.error = -error, done = 1;
                break;
            }
        /* Who was killed meanwhile needs no answer. */
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    write_counts(arguments[2]);
    /* By now it has ended, or waits for something that does not come. */
    for (int tries = 0; tries < 50; tries++) {
        if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        usleep(100000);
    }
    kill(-child, SIGKILL);
    return 124;
}
