/* Ways out of a step, one a name: `attempts NAME [KEY=VALUE ...]`. What is outside is told by the arguments, which
 * `attempts outside` prints.
 *
 * The first word that it writes is the result, the rest says of what:
 *   escaped   it was done, or the kernel found nothing but the arguments wrong
 *   refused   it was not
 *   absent    this kernel has no such thing
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif

static char **facts;

/* What is known of the outside. */
static const char *fact(const char *name) {
    size_t length = strlen(name);
    for (char **at = facts; *at; at++)
        if (!strncmp(*at, name, length) && (*at)[length] == '=') return *at + length + 1;
    return "";
}

static int number(const char *name) { return atoi(fact(name)); }

static void say(const char *result, const char *of, const char *more) {
    printf("%s: %s%s%s\n", result, of, *more ? ": " : "", more);
    exit(0);
}

static void escaped(const char *of) { say("escaped", of, ""); }
static void refused(const char *of) { say("refused", of, strerror(errno)); }
static void absent(const char *of) { say("absent", of, strerror(errno)); }

/* A call that must not be made at all: wrong arguments are found after it was allowed. */
static void allowed(long result, const char *of) {
    if (result >= 0) escaped(of);
    if (errno == EPERM || errno == EACCES || errno == ENOSYS) refused(of);
    say("escaped", of, strerror(errno));
}

/* A call that must fail. */
static void done(long result, const char *of) {
    if (result >= 0) escaped(of);
    refused(of);
}

static void opened(const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) absent(path);
    done(fd, path);
}

/* Writes to a setting the value that it has. */
static void rewritten(const char *path) {
    char value[4096];
    int fd = open(path, O_RDONLY);
    if (fd < 0 && errno == ENOENT) absent(path);
    if (fd < 0) refused(path);
    ssize_t length = read(fd, value, sizeof value);
    close(fd);
    fd = open(path, O_WRONLY);
    if (fd < 0) refused(path);
    done(write(fd, value, length > 0 ? length : 0), path);
}

static void read_something(const char *path) {
    char byte;
    int fd = open(path, O_RDONLY);
    if (fd < 0 && errno == ENOENT) absent(path);
    if (fd < 0) refused(path);
    ssize_t length = read(fd, &byte, 1);
    if (length == 0) say("refused", path, "nothing in it");
    done(length, path);
}

static void listed(const char *path) {
    DIR *folder = opendir(path);
    if (!folder && errno == ENOENT) absent(path);
    if (!folder) refused(path);
    struct dirent *entry;
    while ((entry = readdir(folder)))
        if (entry->d_name[0] != '.') say("escaped", path, entry->d_name);
    say("refused", path, "nothing in it");
}

/* Nodes of a device, wherever they can be made, and one that came with the image. */
static void device(mode_t kind, dev_t which, int flags, const char *of_image) {
    const char *folders[] = {"/", "/tmp/", "/dev/", "/dev/shm/", "/dev/pts/", "/dev/mqueue/", "/bind/", "/memory/", "/proc/", "/sys/"};
    char path[64], last[128] = "none can be made";
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%snode", folders[i]);
        if (mknod(path, kind | 0600, which) < 0) continue;
        int fd = open(path, flags);
        snprintf(last, sizeof last, "%s: %s", path, strerror(errno));
        int error = errno;
        unlink(path);
        /* The kernel answers this for files only, and a supervisor of calls does not answer it at all. */
        if (fd >= 0 && ioctl(fd, FIONREAD, &(int){0}) == 0) {
            close(fd);
            snprintf(last, sizeof last, "%s: an empty file stands for it", path);
            continue;
        }
        if (fd >= 0) escaped(path);
        errno = error;
        if (error == ENXIO || error == ENODEV) absent(path);
    }
    if (*of_image && open(of_image, flags) >= 0) escaped(of_image);
    say("refused", "opening of a node", last);
}

static void trace_outside(void) {
    pid_t pid = number("pid");
    if (ptrace(PTRACE_ATTACH, pid, 0, 0) < 0) refused("ptrace");
    waitpid(pid, 0, __WALL);
    ptrace(PTRACE_DETACH, pid, 0, 0);
    escaped("ptrace");
}

static void path_outside(const char *rest, int flags) {
    char path[128];
    snprintf(path, sizeof path, "/proc/%d/%s", number("pid"), rest);
    done(open(path, flags), path);
}

/* A path of the outside, as it is and by a process that sees it. */
static const char *seen_outside(const char *path) {
    static char through[PATH_MAX];
    if (!*path) say("absent", "the outside", "nothing like it is there");
    if (access(path, F_OK) == 0) return path;
    snprintf(through, sizeof through, "/proc/%d/root%s", number("pid"), path);
    return through;
}

static void group_made(void) {
    char path[PATH_MAX], through[32];
    snprintf(through, sizeof through, "/proc/%d/root", number("pid"));
    const char *ways[] = {"", through};
    for (int i = 0; i < 2; i++) {
        /* Also where nothing is mounted there is a folder of that name in /sys. */
        snprintf(path, sizeof path, "%s%s/kiln-escape-%d", ways[i], fact("group"), getpid());
        if (*fact("group") && mkdir(path, 0755) == 0) {
            rmdir(path);
            escaped("mkdir in a control group");
        }
    }
    refused("mkdir in a control group");
}

/* Types a line for whoever reads from the terminal of the caller. */
static void typed(void) {
    int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) absent("/dev/tty");
    if (fd < 0) refused("/dev/tty");
    if (ioctl(fd, TIOCSTI, "x") < 0 || ioctl(fd, TIOCSTI, "\n") < 0) say("escaped", "/dev/tty, but not TIOCSTI", strerror(errno));
    escaped("/dev/tty, TIOCSTI");
}

static void joined_outside(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", number("pid"));
    int fd = open(path, O_RDONLY);
    if (fd < 0) refused(path);
    done(setns(fd, 0), "setns");
}

static void descriptors(void) {
    for (int fd = 3; fd < 1024; fd++) {
        char name[32], target[PATH_MAX] = "";
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        if (readlink(name, target, sizeof target - 1) > 0 && strcmp(target, "/dev/null")) say("escaped", name, target);
    }
    say("refused", "/proc/self/fd", "nothing above 2");
}

static void working_directory(void) {
    char name[PATH_MAX] = "";
    if (access(fact("marker"), F_OK) < 0) refused(fact("marker"));
    escaped(realpath(".", name) ? name : "the working directory");
}

static void handle(void) {
    struct { struct file_handle head; char bytes[128]; } name = {.head.handle_bytes = 128};
    int mount_id, within = open("/bind", O_RDONLY | O_DIRECTORY);
    if (name_to_handle_at(AT_FDCWD, "/bind", &name.head, &mount_id, 0) < 0) absent("name_to_handle_at");
    done(open_by_handle_at(within, &name.head, O_RDONLY), "open_by_handle_at");
}

static void control_group(void) {
    mkdir("/tmp/group", 0755);
    if (mount("x", "/tmp/group", "cgroup", 0, "freezer") == 0) {
        int fd = open("/tmp/group/release_agent", O_WRONLY);
        done(fd, "mount(cgroup), release_agent");
    }
    done(mount("x", "/tmp/group", "cgroup2", 0, 0), "mount(cgroup2)");
}

static void new_proc(void) {
    mkdir("/tmp/proc", 0755);
    if (mount("x", "/tmp/proc", "proc", 0, 0) < 0) refused("mount(proc)");
    rewritten("/tmp/proc/sys/kernel/core_pattern");
}

static void host_name(void) {
    char name[256], space[64] = "";
    gethostname(name, sizeof name);
    if (sethostname(name, strlen(name)) < 0) refused("sethostname");
    if (readlink("/proc/self/ns/uts", space, sizeof space - 1) < 0) refused("readlink");
    if (strcmp(space, fact("uts"))) say("refused", "sethostname", "it is the step's own name");
    escaped("sethostname");
}

static void abstract_socket(void) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "%s", fact("abstract"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    done(connect(fd, (void *)&name, offsetof(struct sockaddr_un, sun_path) + 1 + length), "connect");
}

static void network_device(void) {
    char line[512];
    FILE *devices = fopen("/proc/net/dev", "r");
    while (devices && fgets(line, sizeof line, devices))
        if (*fact("device") && strstr(line, fact("device"))) say("escaped", "packets of", fact("device"));
    say("refused", "/proc/net/dev", "it is not there");
}

static void program_in_kernel(void) {
    struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}};
    union bpf_attr load = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insn_cnt = 2};
    load.insns = (uintptr_t)code;
    load.license = (uintptr_t) "";
    done(syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load), "bpf");
}

static void events_of_all(void) {
    struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE, .size = sizeof event};
    done(syscall(SYS_perf_event_open, &event, -1, 0, -1, 0), "perf_event_open");
}

static void keyring_of_user(void) {
    long key = syscall(SYS_keyctl, 10 /* SEARCH */, -4 /* of the user */, "user", "kiln-escape", 0);
    done(key, "keyctl(SEARCH)");
}

static void keyring_of_session(void) {
    long ring = syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -3 /* of the session */, 0);
    if (ring < 0) refused("keyctl");
    if (ring != number("session")) say("refused", "keyctl", "it is the step's own keyring");
    escaped("keyctl");
}

static void limit_raised(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max = limit.rlim_max + 1;
    done(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
}

static void less_killable(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    done(write(fd, "-900", 4), "/proc/self/oom_score_adj");
}

static void clock_set(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    done(clock_settime(CLOCK_REALTIME, &now), "clock_settime");
}

static void queue_opened(void) {
    mqd_t queue = mq_open(fact("queue"), O_RDONLY);
    if (queue == (mqd_t)-1 && errno == ENOSYS) absent("mq_open");
    done(queue, "mq_open");
}

/* The double chroot: a working directory outside of the root climbs to the top. */
static void chroot_left(void) {
    char path[PATH_MAX];
    mkdir("/tmp/jail", 0755);
    if (chroot("/tmp/jail") < 0) refused("chroot");
    for (int i = 0; i < 64; i++)
        if (chdir("..") < 0) break;
    snprintf(path, sizeof path, ".%s", fact("secret"));
    done(open(path, O_RDONLY), "chroot, then ..");
}

static void setting_of_kernel(void) {
    const char *settings[] = {"/sys/kernel/mm/ksm/run", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/profiling"};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (access(settings[i], F_OK) == 0) opened(settings[i], O_WRONLY);
    absent("/sys/kernel");
}

/* Where control groups are mounted: one of version 2 first, or with `agent` the file that version 1 has there. */
static const char *groups(int agent) {
    static char path[PATH_MAX];
    char line[4096], at[2048], kind[64];
    FILE *mounts = fopen("/proc/self/mounts", "r");
    *path = 0;
    while (mounts && fgets(line, sizeof line, mounts)) {
        if (sscanf(line, "%*s %2047s %63s", at, kind) != 2 || strncmp(kind, "cgroup", 6)) continue;
        int unified = !strcmp(kind, "cgroup2");
        if (agent && (unified || *path)) continue;
        if (!agent && *path && !unified) continue;
        snprintf(path, sizeof path, "%s%s", at, agent ? "/release_agent" : "");
    }
    if (mounts) fclose(mounts);
    return path;
}

/* Things to be found from inside; lives until nobody holds the other end of its input. */
static int outside(void) {
    char byte, queue[64], file[64], space[64] = "";
    int memory = shmget(0x6b696c6e, 4096, IPC_CREAT | 0600);
    int semaphores = semget(0x6b696c6e, 1, IPC_CREAT | 0600);
    int numbered = msgget(0x6b696c6e, IPC_CREAT | 0600);
    snprintf(file, sizeof file, "/kiln-escape-%d", getpid());
    close(shm_open(file, O_CREAT | O_RDWR, 0600));
    snprintf(queue, sizeof queue, "/kiln-escape-%d", getpid());
    mqd_t made = mq_open(queue, O_CREAT | O_RDWR, 0600, 0);
    long key = syscall(SYS_add_key, "user", "kiln-escape", "x", 1, -4);
    long session = syscall(SYS_keyctl, 0, -3, 0);
    if (readlink("/proc/self/ns/uts", space, sizeof space - 1) < 0) return 1;
    printf("pid=%d queue=%s session=%ld uts=%s file=/dev/shm%s", getpid(), queue, session, space, file);
    printf(" group=%s", groups(0));
    printf(" agent=%s\n", groups(1));
    fflush(stdout);
    while (read(0, &byte, 1) > 0) continue;
    shmctl(memory, IPC_RMID, 0);
    semctl(semaphores, 0, IPC_RMID);
    msgctl(numbered, IPC_RMID, 0);
    shm_unlink(file);
    if (made != (mqd_t)-1) mq_unlink(queue);
    if (key > 0) syscall(SYS_keyctl, 9 /* UNLINK */, key, -4);
    return 0;
}

int main(int count, char **arguments) {
    if (count < 2) return 2;
    setvbuf(stdout, 0, _IOLBF, 0);
    const char *name = arguments[1];
    facts = arguments + 2;
#define IS(text) (!strcmp(name, text))
    if (IS("outside")) return outside();
    if (IS("core-pattern")) rewritten("/proc/sys/kernel/core_pattern");
    if (IS("last-pid")) rewritten("/proc/sys/kernel/ns_last_pid");
    if (IS("uevent-helper")) rewritten("/sys/kernel/uevent_helper");
    if (IS("sysrq-trigger")) opened("/proc/sysrq-trigger", O_WRONLY);
    if (IS("irq")) opened("/proc/irq/default_smp_affinity", O_WRONLY);
    if (IS("sys-write")) setting_of_kernel();
    if (IS("kcore")) read_something("/proc/kcore");
    if (IS("keys")) read_something("/proc/keys");
    if (IS("timer-list")) read_something("/proc/timer_list");
    if (IS("firmware")) listed("/sys/firmware");
    if (IS("release-agent")) control_group();
    if (IS("user-namespace")) done(unshare(CLONE_NEWUSER), "unshare(CLONE_NEWUSER)");
    if (IS("clone-namespace")) {
        long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
        if (pid == 0) _exit(0);
        done(pid, "clone(CLONE_NEWUSER)");
    }
    if (IS("clone3-namespace")) {
        uint64_t of[11] = {CLONE_NEWUSER};
        long pid = syscall(SYS_clone3, of, 64);
        if (pid == 0) _exit(0);
        allowed(pid, "clone3(CLONE_NEWUSER)");
    }
    if (IS("new-proc")) new_proc();
    if (IS("remount")) done(mount(0, "/proc/sys", 0, MS_REMOUNT | MS_BIND, 0), "mount(remount)");
    if (IS("unmask")) done(umount2("/sys/firmware", MNT_DETACH), "umount2");
    if (IS("move-mount")) done(mount("/dev/shm", "/tmp", 0, MS_MOVE, 0), "mount(move)");
    if (IS("new-mount-api")) done(syscall(SYS_fsopen, "proc", 0), "fsopen");
    if (IS("pivot-root")) allowed(syscall(SYS_pivot_root, "/", "/"), "pivot_root");
    if (IS("disk")) device(S_IFBLK, makedev(number("major"), number("minor")), O_RDONLY, "/node-of-image");
    if (IS("kernel-log-device")) device(S_IFCHR, makedev(1, 11), O_WRONLY | O_NONBLOCK, "");
    if (IS("fuse-device")) device(S_IFCHR, makedev(10, 229), O_RDWR, "");
    if (IS("ptrace")) trace_outside();
    if (IS("signal")) done(kill(number("pid"), 0), "kill");
    if (IS("root-of-process")) path_outside("root/proc", O_RDONLY);
    if (IS("setns")) joined_outside();
    if (IS("environment")) path_outside("environ", O_RDONLY);
    if (IS("control-group")) group_made();
    if (IS("release-agent-file")) done(open(seen_outside(fact("agent")), O_WRONLY), "release_agent");
    if (IS("shared-file")) done(open(seen_outside(fact("file")), O_RDONLY), "a file of /dev/shm");
    if (IS("terminal")) typed();
    if (IS("environment-of-init")) read_something("/proc/1/environ");
    if (IS("memory-of-init")) opened("/proc/1/mem", O_RDWR);
    if (IS("program-of-init")) opened("/proc/1/exe", O_RDONLY);
    if (IS("descriptors")) descriptors();
    if (IS("working-directory")) working_directory();
    if (IS("file-handle")) handle();
    if (IS("double-chroot")) chroot_left();
    if (IS("keyring-of-user")) keyring_of_user();
    if (IS("keyring-of-session")) keyring_of_session();
    if (IS("shared-memory")) done(shmget(0x6b696c6e, 0, 0), "shmget");
    if (IS("semaphores")) done(semget(0x6b696c6e, 0, 0), "semget");
    if (IS("sysv-queue")) done(msgget(0x6b696c6e, 0), "msgget");
    if (IS("message-queue")) queue_opened();
    if (IS("abstract-socket")) abstract_socket();
    if (IS("network-device")) network_device();
    if (IS("host-name")) host_name();
    if (IS("bpf")) program_in_kernel();
    if (IS("perf-events")) events_of_all();
    if (IS("userfaultfd")) done(syscall(SYS_userfaultfd, 1), "userfaultfd");
    if (IS("io-uring")) allowed(syscall(SYS_io_uring_setup, 1, 0), "io_uring_setup");
    if (IS("kernel-module")) allowed(syscall(SYS_finit_module, -1, "", 0), "finit_module");
    if (IS("kexec")) allowed(syscall(SYS_kexec_load, 0, 0, 0, -1), "kexec_load");
    if (IS("reboot")) allowed(syscall(SYS_reboot, 0, 0, 0, 0), "reboot");
    if (IS("swapon")) allowed(syscall(SYS_swapon, "/no/such", 0), "swapon");
    if (IS("quota")) allowed(syscall(SYS_quotactl, 0x80000100 /* Q_SYNC */, "/no/such", 0, 0), "quotactl");
    if (IS("accounting")) allowed(syscall(SYS_acct, "/no/such"), "acct");
    if (IS("kernel-log")) allowed(syscall(SYS_syslog, 8, 0, 99), "syslog(console level)");
    if (IS("clock")) clock_set();
    if (IS("io-ports")) allowed(syscall(SYS_ioperm, 0, 1, 1), "ioperm");
    if (IS("vsock")) allowed(socket(40, SOCK_STREAM, 0), "socket(AF_VSOCK)");
    if (IS("kernel-crypto")) allowed(socket(38, SOCK_SEQPACKET, 0), "socket(AF_ALG)");
    if (IS("no-randomization")) done(personality(ADDR_NO_RANDOMIZE), "personality");
    if (IS("priority")) done(setpriority(PRIO_PROCESS, 0, -10), "setpriority");
    if (IS("less-killable")) less_killable();
    if (IS("limit")) limit_raised();
    fprintf(stderr, "%s is not known\n", name);
    return 2;
}
