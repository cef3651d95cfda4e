/*
 * floor.c - the yardstick of kiOS's boot benchmark.
 *
 * A static PID 1 in C that does what kiOS's init does, in the same order of effects, with nothing in
 * between: no runtime to load, no schedule, no restarts. What a boot with it takes is the floor that
 * the same kernel, containerd and kubelet put under any init; the distance to it is kiOS's own cost.
 *
 *     gcc -std=c17 -O2 -static -s -Wall -Wextra -Werror -o init floor.c
 *
 * The image is kiOS's own, with this program as /init and with
 *     /bin/floor-import                 see bench/floor-import; imports /lib/kios/images/NAME.tar
 *     /lib/kios/floor/containerd.toml   containerd's configuration; socket /run/containerd/containerd.sock
 *     /lib/kios/floor/kubelet.yaml      KubeletConfiguration, naming a TLS pair that the image holds
 *                                       (kiOS makes one at boot: the floor is spared that)
 *     /lib/modules/kios.order           modules in dependency order, one path per line, relative to
 *                                       /lib/modules; those before the first empty line are loaded
 *                                       before containerd is started, the others while it comes up
 *
 * Milestones go to /dev/kmsg as `kios: milestone NAME` (facility daemon, level notice):
 *     init              first statement of this program
 *     containerd-exec   containerd is about to be forked
 *     containerd-ready  its READY=1 arrived: all plugins run, CRI included, and the socket serves.
 *                       That is sd_notify(3), for an init the exact and the cheapest answer: one
 *                       datagram, no polling
 *     kubelet-exec      the kubelet is about to be forked
 *     kubelet-healthy   GET 127.0.0.1:10248/healthz was answered with 200; asked every 10 ms from the
 *                       kubelet's own READY=1 on (which it sends before that listener is up)
 *     pod-running       pod=NAMESPACE/NAME for each pod, once one of its containers runs its own program:
 *                       the task's init.pid is there and that process is no longer runc. Looked at every
 *                       10 ms. (The path of the image's program must not hold "runc".) Which pod a task
 *                       belongs to is read in its bundle's config.json, where CRI annotates it.
 *
 * `floor.kubelet=early` on the kernel's command line forks the kubelet along with containerd; it then
 * waits for its configuration, which comes through a pipe when containerd is ready, so that the start
 * of its runtime overlaps containerd's. Default is `late`, as kiOS does it: fork it when containerd is
 * ready. (It asks the runtime once, after it has its configuration, and exits when nobody answers.)
 *
 * With -DNAMESPACE it is PID 1 of namespaces on a machine that others use (bench/native): it loads no module, sets no
 * sysctl, does not take Ctrl-Alt-Del, leaves out the filesystems that all namespaces share, asks for no controllers, and
 * does without what a container may lack (CAP_SYS_RESOURCE: limits and scores).
 *
 * Nothing is restarted: when a step, containerd, the kubelet or the import fails, `kios: boot-failed`
 * says which, and the machine goes down.
 *
 * bench/test/floor.unit.test.ts compares the tables below with those of kiOS's stages.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/module.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define CGROUP "/sys/fs/cgroup"
#define CONFIG "/lib/kios/floor"
#define IMAGES "/lib/kios/images"
#define MODULES "/lib/modules"
#define SOCKET "/run/containerd/containerd.sock"
#define TASKS "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
#define POLL_MS 10
#define OPEN_FILES 1048576
#define PODS 128
#define TIGHT (MS_NOSUID | MS_NODEV | MS_NOEXEC)

#ifdef NAMESPACE
static const bool alone = false;
#else
static const bool alone = true;
#endif

static int kmsg = -1;

/* One record in the kernel's log, hence on the console: <29> is daemon.notice, <27> daemon.err. */
static void say(const char *priority, const char *text, const char *subject) {
    char line[512];
    int length = snprintf(line, sizeof line, "%skios: %s%s\n", priority, text, subject);
    if (write(kmsg, line, length < (int)sizeof line ? (size_t)length : sizeof line - 1) < 0) return;
}

static void milestone(const char *name) {
    say("<29>", "milestone ", name);
}

/* A floor that does not hold is no yardstick: say why and end the machine. */
static _Noreturn void die(const char *what, const char *subject) {
    char text[384];
    const char *error = strerror(errno);
    snprintf(text, sizeof text, "boot-failed stage=floor reason=\"%s %s: %s\"", what, subject, error);
    say("<27>", text, "");
    if (!alone) {
        fprintf(stderr, "%s\n", text);
        _exit(1);
    }
    sync();
    reboot(RB_AUTOBOOT);
    for (;;) pause();
}

static void make_directory(const char *path) {
    if (mkdir(path, 0755) < 0 && errno != EEXIST) die("mkdir", path);
}

/* The whole of a small file, ended by a NUL; to be freed. */
static char *read_file(const char *path, size_t *length) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return NULL;
    size_t size = 65536, used = 0;
    char *data = malloc(size + 1);
    for (ssize_t n = 1; data != NULL && n > 0; used += (size_t)n) {
        if (used == size && (data = realloc(data, (size *= 2) + 1)) == NULL) break;
        if ((n = read(fd, data + used, size - used)) < 0) n = 0;
    }
    close(fd);
    if (data == NULL) die("read", path);
    data[used] = '\0';
    if (length != NULL) *length = used;
    return data;
}

static bool write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, text, strlen(text)) >= 0;
    int error = errno;
    if (fd >= 0) close(fd);
    errno = error;
    return written;
}

/*
 * The kernel's first root has no parent mount, so runc's pivot_root(2) fails on it. A small tmpfs that
 * shows the initramfs's directories by bind mounts, moved over `/`, has one, and copies nothing.
 */
static void switch_root(void) {
    static const char *const shared[] = {"bin", "lib", "lib64"};
    static const char *const empty[] = {"proc", "sys", "dev", "run", "tmp", "etc", "var", "opt"};
    const unsigned long seal = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_RELATIME;

    make_directory("/newroot");
    if (mount("kios-root", "/newroot", "tmpfs", TIGHT, "mode=0755,size=1M,nr_inodes=1k") < 0)
        die("mount", "root");
    if (chdir("/newroot") < 0) die("chdir", "/newroot");
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) {
        char source[32];
        snprintf(source, sizeof source, "/%s", shared[i]);
        make_directory(shared[i]);
        if (mount(source, shared[i], NULL, MS_BIND, NULL) < 0) die("bind", source);
        if (mount(NULL, shared[i], NULL, seal, NULL) < 0) die("remount", source);
    }
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) make_directory(empty[i]);
    if (unlink("/init") < 0 && errno != ENOENT) die("unlink", "/init");
    if (mount(".", "/", NULL, MS_MOVE, NULL) < 0) die("move", "/newroot");
    if (chroot(".") < 0 || chdir("/") < 0) die("chroot", "/newroot");
    if (mount(NULL, "/", NULL, seal | MS_NOEXEC, NULL) < 0) die("remount", "/");
    /* Bidirectional mounts of pods need a shared root; it can only be made so after the move. */
    if (mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL) < 0) die("share", "/");
}

/* Of these a mount anywhere is the machine's, with its options. */
static bool is_shared(const char *type) {
    static const char *const types[] = {"securityfs", "bpf", "tracefs", "pstore"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(type, types[i]) == 0) return true;
    return false;
}

static void mount_filesystems(void) {
    static const struct {
        const char *type, *target, *options;
        unsigned long flags;
    } table[] = {
        {"proc", "/proc", "", TIGHT},
        {"sysfs", "/sys", "", TIGHT},
        {"devtmpfs", "/dev", "mode=0755,size=4M,nr_inodes=64k", MS_NOSUID | MS_NOEXEC},
        {"devpts", "/dev/pts", "mode=0620,gid=5,ptmxmode=0000", MS_NOSUID | MS_NOEXEC},
        {"tmpfs", "/dev/shm", "mode=1777,size=64M,nr_inodes=16k", TIGHT},
        {"securityfs", "/sys/kernel/security", "", TIGHT},
        {"bpf", "/sys/fs/bpf", "mode=0700", TIGHT},
        {"tracefs", "/sys/kernel/tracing", "mode=0700", TIGHT},
        {"pstore", "/sys/fs/pstore", "", TIGHT},
        {"tmpfs", "/run", "mode=0755,size=20%,nr_inodes=64k", TIGHT},
        {"tmpfs", "/tmp", "mode=0755,size=64M,nr_inodes=16k", TIGHT},
        {"tmpfs", "/var", "mode=0755,size=50%", MS_NOSUID | MS_NODEV},
        {"tmpfs", "/opt", "mode=0755,size=256M,nr_inodes=16k", MS_NOSUID | MS_NODEV},
        {"cgroup2", CGROUP, "nsdelegate,memory_recursiveprot", TIGHT},
    };

    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *type = table[i].type;
        if (!alone && is_shared(type)) continue;
        /* There is one devtmpfs, whoever mounts it: its size is not ours to set. */
        const char *options = alone || strcmp(type, "devtmpfs") != 0 ? table[i].options : "";
        if (strncmp(table[i].target, "/dev/", 5) == 0) make_directory(table[i].target);
        if (mount(type, table[i].target, type, table[i].flags, options) < 0) die("mount", table[i].target);
    }
}

/* What programs expect of a /dev that udev would have made, and directories to write to. */
static void make_paths(void) {
    static const char *const links[][2] = {
        {"/proc/self/fd", "/dev/fd"},       {"/proc/self/fd/0", "/dev/stdin"},
        {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"},
        {"/run", "/var/run"},
    };
    static const char *const directories[] = {
        "/run/kios", "/run/kios/log", "/run/kios/etc", "/var/lib", "/var/log", "/opt/cni", "/opt/cni/bin",
    };

    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST) die("link", links[i][1]);
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) make_directory(directories[i]);
}

/* A group for init and one for each daemon; the kernel has all these controllers. */
static void make_cgroups(void) {
    static const char all[] = "+cpuset +cpu +io +memory +hugetlb +pids +rdma +misc";
    const char *controllers = alone ? all : "";
    static const char *const groups[] = {CGROUP "/kios/init", CGROUP "/kios/runtime", CGROUP "/kios/kubelet"};

    if (!write_file(CGROUP "/cgroup.subtree_control", controllers)) die("delegate", CGROUP);
    make_directory(CGROUP "/kios");
    if (!write_file(CGROUP "/kios/cgroup.subtree_control", controllers)) die("delegate", CGROUP "/kios");
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) make_directory(groups[i]);
    if (!write_file(CGROUP "/kios/init/cgroup.procs", "1")) die("join", CGROUP "/kios/init");
}

static void load_module(const char *name) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, MODULES "/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) die("open", path);
    const char *suffix = strrchr(name, '.');
    bool plain = suffix != NULL && strcmp(suffix, ".ko") == 0;
    if (syscall(SYS_finit_module, fd, "", plain ? 0 : MODULE_INIT_COMPRESSED_FILE) < 0 && errno != EEXIST)
        die("finit_module", path);
    close(fd);
}

/* Loads up to the next empty line of the list, or to its end; returns where to go on. */
static char *load_modules(char *list) {
    while (*list != '\0' && *list != '\n') {
        char *end = strchrnul(list, '\n');
        char *next = *end == '\0' ? end : end + 1;
        *end = '\0';
        load_module(list);
        list = next;
    }
    return *list == '\n' ? list + 1 : list;
}

/* kiOS's table. A key that this kernel does not have is passed over. */
static void set_sysctls(void) {
    static const char *const table[][2] = {
        {"net/ipv4/ip_forward", "1"},
        {"net/ipv6/conf/all/forwarding", "1"},
        {"net/ipv6/conf/all/accept_ra", "2"},
        {"net/ipv6/conf/default/accept_ra", "2"},
        {"net/bridge/bridge-nf-call-iptables", "1"},
        {"net/bridge/bridge-nf-call-ip6tables", "1"},
        {"net/ipv4/tcp_keepalive_time", "600"},
        {"net/ipv4/tcp_keepalive_intvl", "60"},
        {"vm/overcommit_memory", "1"},
        {"vm/panic_on_oom", "0"},
        {"kernel/panic_on_oops", "1"},
        {"kernel/keys/root_maxkeys", "1000000"},
        {"kernel/keys/root_maxbytes", "25000000"},
        {"kernel/pid_max", "262144"},
        {"fs/inotify/max_user_instances", "8192"},
        {"fs/inotify/max_user_watches", "524288"},
        {"fs/aio-max-nr", "1048576"},
        {"dev/tty/ldisc_autoload", "0"},
        {"dev/tty/legacy_tiocsti", "0"},
        {"fs/protected_symlinks", "1"},
        {"fs/protected_hardlinks", "1"},
        {"fs/protected_fifos", "2"},
        {"fs/protected_regular", "2"},
        {"fs/suid_dumpable", "0"},
        {"kernel/kptr_restrict", "2"},
        {"kernel/dmesg_restrict", "1"},
        {"kernel/perf_event_paranoid", "3"},
        {"kernel/randomize_va_space", "2"},
        {"kernel/unprivileged_bpf_disabled", "1"},
        {"kernel/yama/ptrace_scope", "2"},
        {"net/core/bpf_jit_harden", "2"},
        {"vm/unprivileged_userfaultfd", "0"},
        {"kernel/core_pattern", "core"},
    };

    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/sys/%s", table[i][0]);
        if (!write_file(path, table[i][1]) && errno != ENOENT) die("write", path);
    }
}

/* The image's files below what is written at run time. */
static void mount_etc(void) {
    static const char options[] = "lowerdir=/lib/kios/etc,upperdir=/run/kios/etc/upper,workdir=/run/kios/etc/work";
    if (mount("tmpfs", "/run/kios/etc", "tmpfs", TIGHT, "mode=0755,size=16M,nr_inodes=4k") < 0)
        die("mount", "/run/kios/etc");
    make_directory("/run/kios/etc/upper");
    make_directory("/run/kios/etc/work");
    if (mount("etc", "/etc", "overlay", TIGHT, options) < 0) die("mount", "/etc");
}

static void make_machine_id(void) {
    unsigned char random[16];
    if (getrandom(random, sizeof random, 0) != sizeof random) die("random for", "machine-id");
    int fd = open("/etc/machine-id", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0444);
    if (fd < 0) die("open", "/etc/machine-id");
    for (size_t i = 0; i < sizeof random; i++) dprintf(fd, "%02x", random[i]);
    dprintf(fd, "\n");
    close(fd);
}

static void raise_loopback(void) {
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0) die("flags of", "lo");
    request.ifr_flags |= IFF_UP;
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0) die("raise", "lo");
    close(fd);
}

static void set_hostname(void) {
    char *name = read_file("/etc/hostname", NULL);
    const char *host = name != NULL ? name : "kios";
    if (sethostname(host, strcspn(host, "\n")) < 0) die("sethostname", host);
    free(name);
}

/* The socket on which a daemon says READY=1. */
static int notify_socket(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("bind", path);
    return fd;
}

static bool is_ready(int fd) {
    char text[512];
    ssize_t length;
    bool ready = false;
    while ((length = recv(fd, text, sizeof text, 0)) > 0)
        if (memmem(text, (size_t)length, "READY=1", 7) != NULL) ready = true;
    return ready;
}

/* Forks a program into the cgroup /kios/GROUP; input becomes its descriptor 3. */
static pid_t spawn(const char *group, const char *score, char *const argv[], char *const envp[], int input) {
    char log[64], cgroup[64];
    snprintf(log, sizeof log, "/run/kios/log/%s.log", group);
    snprintf(cgroup, sizeof cgroup, CGROUP "/kios/%s/cgroup.procs", group);
    pid_t pid = fork();
    if (pid < 0) die("fork", argv[0]);
    if (pid > 0) return pid;

    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    int in = open("/dev/null", O_RDONLY), out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0640);
    bool fine = write_file(cgroup, "0") && (write_file("/proc/self/oom_score_adj", score) || !alone);
    fine = fine && dup2(in, 0) >= 0 && dup2(out, 1) >= 0 && dup2(out, 2) >= 0;
    if (fine && input >= 0) fine = dup2(input, 3) >= 0;
    if (fine) syscall(SYS_close_range, input >= 0 ? 4U : 3U, ~0U, 0U);
    if (fine) execve(argv[0], argv, envp);
    _exit(127);
}

static pid_t start_containerd(void) {
    static char *argv[] = {"/bin/containerd", "--config", CONFIG "/containerd.toml", NULL};
    static char *envp[] = {"PATH=/bin", "NOTIFY_SOCKET=/run/kios/containerd.notify", NULL};
    milestone("containerd-exec");
    return spawn("runtime", "-999", argv, envp, -1);
}

static pid_t start_kubelet(int input) {
    static char *argv[] = {"/bin/kubelet", "--config", "/proc/self/fd/3", NULL};
    static char *envp[] = {"PATH=/bin", "NOTIFY_SOCKET=/run/kios/kubelet.notify", NULL};
    milestone("kubelet-exec");
    return spawn("kubelet", "-999", argv, envp, input);
}

static pid_t start_import(void) {
    static char paths[64][PATH_MAX];
    static char *argv[68] = {"/bin/floor-import", SOCKET};
    static char *envp[] = {"PATH=/bin", NULL};
    int count = 0;
    DIR *directory = opendir(IMAGES);
    if (directory == NULL) die("open", IMAGES);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL && count < 64;) {
        const char *suffix = strrchr(entry->d_name, '.');
        if (suffix == NULL || strcmp(suffix, ".tar") != 0) continue;
        snprintf(paths[count], PATH_MAX, IMAGES "/%s", entry->d_name);
        argv[2 + count] = paths[count];
        count++;
    }
    closedir(directory);
    return count == 0 ? -1 : spawn("init", "0", argv, envp, -1);
}

static bool kubelet_healthy(void) {
    static const char request[] = "GET /healthz HTTP/1.0\r\n\r\n";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(10248)};
    struct timeval limit = {.tv_sec = 1};
    char answer[64] = "";
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket for", "healthz");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    bool healthy = connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
                   write(fd, request, sizeof request - 1) > 0 && read(fd, answer, sizeof answer - 1) >= 12 &&
                   memcmp(answer + 8, " 200", 4) == 0;
    close(fd);
    return healthy;
}

static bool task_runs(int tasks, const char *id) {
    char path[PATH_MAX], pid[16] = "", program[PATH_MAX] = "";
    snprintf(path, sizeof path, "%s/init.pid", id);
    int fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t length = read(fd, pid, sizeof pid - 1);
    close(fd);
    snprintf(path, sizeof path, "/proc/%s/exe", pid);
    /* Until runc's own init has executed the container's program, this is runc or its sealed copy. */
    return length > 0 && readlink(path, program, sizeof program - 1) > 0 && strstr(program, "runc") == NULL;
}

/* The value of a string in JSON that containerd wrote, without anything that had to be escaped. */
static bool json_string(const char *json, const char *key, char *value, size_t size) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\"", key);
    const char *at = strstr(json, quoted);
    if (at == NULL) return false;
    at += strlen(quoted);
    at += strspn(at, " :");
    size_t length = *at == '"' ? strcspn(++at, "\"") : size;
    if (length >= size) return false;
    memcpy(value, at, length);
    value[length] = '\0';
    return true;
}

/* NAMESPACE/NAME of the pod of a task that is a container and not a sandbox. */
static bool pod_of(const char *id, char *pod, size_t size) {
    char path[PATH_MAX], kind[16], space[64], name[256];
    snprintf(path, sizeof path, TASKS "/%s/config.json", id);
    char *json = read_file(path, NULL);
    if (json == NULL) return false;
    bool found = json_string(json, "io.kubernetes.cri.container-type", kind, sizeof kind) &&
                 strcmp(kind, "container") == 0 &&
                 json_string(json, "io.kubernetes.cri.sandbox-namespace", space, sizeof space) &&
                 json_string(json, "io.kubernetes.cri.sandbox-name", name, sizeof name);
    free(json);
    if (!found) return false;
    /* A static pod is called NAME-NODE; the manifest says NAME. */
    char node[72] = "-";
    gethostname(node + 1, sizeof node - 1);
    size_t length = strlen(name), suffix = strlen(node);
    if (length > suffix && strcmp(name + length - suffix, node) == 0) name[length - suffix] = '\0';
    snprintf(pod, size, "%s/%s", space, name);
    return true;
}

/* Tells each pod once. A task is looked at until its own program runs, and then never again. */
static void tell_pods(void) {
    static char seen[2 * PODS][72], told[PODS][324];
    static int seen_count, told_count;
    DIR *directory = opendir(TASKS);
    if (directory == NULL) return;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        int i = 0;
        while (i < seen_count && strcmp(seen[i], entry->d_name) != 0) i++;
        if (entry->d_name[0] == '.' || i < seen_count) continue;
        errno = ENOSPC;
        if (i == 2 * PODS || told_count == PODS) die("more pods than", "PODS");
        if (strlen(entry->d_name) >= sizeof *seen || !task_runs(dirfd(directory), entry->d_name)) continue;
        strcpy(seen[seen_count++], entry->d_name);
        char pod[324];
        if (!pod_of(entry->d_name, pod, sizeof pod)) continue;
        for (i = 0; i < told_count && strcmp(told[i], pod) != 0;) i++;
        if (i < told_count) continue;
        strcpy(told[told_count++], pod);
        say("<29>", "milestone pod-running pod=", pod);
    }
    closedir(directory);
}

int main(void) {
    if (getpid() != 1) return 1;
    make_directory("/dev");
    if (mknod("/dev/kmsg", S_IFCHR | 0600, makedev(1, 11)) < 0 && errno != EEXIST) return 1;
    kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    milestone("init");

    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    umask(0022);
    const struct rlimit files = {OPEN_FILES, OPEN_FILES};
    if (setrlimit(RLIMIT_NOFILE, &files) < 0 && alone) die("setrlimit", "RLIMIT_NOFILE");
    if (alone && reboot(RB_DISABLE_CAD) < 0) die("reboot", "RB_DISABLE_CAD");
    switch_root();
    mount_filesystems();
    make_paths();
    make_cgroups();
    char *list = read_file(MODULES "/kios.order", NULL);
    char *cmdline = read_file("/proc/cmdline", NULL);
    size_t length = 0;
    char *config = read_file(CONFIG "/kubelet.yaml", &length);
    if (list == NULL || cmdline == NULL || config == NULL) die("read", "kios.order, cmdline or kubelet.yaml");
    bool early = strstr(cmdline, "floor.kubelet=early") != NULL;
    char *others = load_modules(list);

    int pipe_ends[2];
    if (pipe2(pipe_ends, O_CLOEXEC) < 0) die("pipe for", "kubelet");
    enum { CHILDREN, CONTAINERD, KUBELET };
    struct pollfd watched[] = {
        [CHILDREN] = {.fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK), .events = POLLIN},
        [CONTAINERD] = {.fd = notify_socket("/run/kios/containerd.notify"), .events = POLLIN},
        [KUBELET] = {.fd = notify_socket("/run/kios/kubelet.notify"), .events = POLLIN},
    };
    pid_t containerd = start_containerd(), kubelet = early ? start_kubelet(pipe_ends[0]) : -1, import = -1;

    /* What only the kubelet needs is done while containerd comes up. */
    raise_loopback();
    mount_etc();
    make_machine_id();
    set_hostname();
    load_modules(others);
    if (alone) set_sysctls();

    bool up = false, started = false, healthy = false;
    for (;;) {
        if (poll(watched, 3, up ? POLL_MS : -1) < 0 && errno != EINTR) die("poll", "");

        struct signalfd_siginfo signal;
        while (read(watched[CHILDREN].fd, &signal, sizeof signal) > 0) continue;
        int status;
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
            errno = ECHILD;
            if (pid == containerd) die("exit of", "containerd");
            if (pid == kubelet) die("exit of", "kubelet");
            if (pid == import && status != 0) die("import of", IMAGES);
        }

        if (!up && is_ready(watched[CONTAINERD].fd)) {
            up = true;
            milestone("containerd-ready");
            if (!early) kubelet = start_kubelet(pipe_ends[0]);
            if (write(pipe_ends[1], config, length) != (ssize_t)length) die("write", "kubelet.yaml");
            close(pipe_ends[1]);
            close(pipe_ends[0]);
            import = start_import();
        }
        started = started || is_ready(watched[KUBELET].fd);
        if (started && !healthy && kubelet_healthy()) {
            healthy = true;
            milestone("kubelet-healthy");
        }
        if (up) tell_pods();
    }
}
