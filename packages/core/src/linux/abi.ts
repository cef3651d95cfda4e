/**
 * The numbers behind the names: what Linux's headers say on x86_64 and arm64.
 * Flags are the same on both; system call numbers differ.
 */
import type { MountFlag, RebootCommand, UmountFlag } from "../Kernel.ts"

/** include/uapi/linux/mount.h */
export const mountFlags: Readonly<Record<MountFlag, number>> = {
  MS_RDONLY: 1,
  MS_NOSUID: 2,
  MS_NODEV: 4,
  MS_NOEXEC: 8,
  MS_REMOUNT: 32,
  MS_NOATIME: 1024,
  MS_BIND: 4096,
  MS_MOVE: 8192,
  MS_REC: 16384,
  MS_UNBINDABLE: 1 << 17,
  MS_PRIVATE: 1 << 18,
  MS_SLAVE: 1 << 19,
  MS_SHARED: 1 << 20,
  MS_RELATIME: 1 << 21,
}

/** include/linux/fs.h, umount2(2) */
export const umountFlags: Readonly<Record<UmountFlag, number>> = {
  MNT_FORCE: 1,
  MNT_DETACH: 2,
  MNT_EXPIRE: 4,
  UMOUNT_NOFOLLOW: 8,
}

/** include/uapi/linux/reboot.h; as signed ints, which is what reboot(3) takes. */
export const rebootCommands: Readonly<Record<RebootCommand, number>> = {
  RESTART: 0x01234567,
  HALT: 0xcdef0123 | 0,
  POWER_OFF: 0x4321fedc,
  CAD_ON: 0x89abcdef | 0,
  CAD_OFF: 0,
}

/** System calls that glibc has no wrapper for, by machine. */
export const syscallNumbers = {
  x64: { init_module: 175, finit_module: 313 },
  arm64: { init_module: 105, finit_module: 273 },
} as const

/** The machines that kiOS runs on, as `process.arch` names them. */
export type Machine = keyof typeof syscallNumbers

export const isMachine = (arch: string): arch is Machine => Object.hasOwn(syscallNumbers, arch)

/** finit_module(2): the file is compressed and the kernel is to decompress it (since Linux 5.17). */
export const MODULE_INIT_COMPRESSED_FILE = 4

/** waitid(2) */
export const P_ALL = 0
export const WNOHANG = 1
export const WEXITED = 4
export const WNOWAIT = 0x01000000
/** siginfo_t: size, and the offset of si_pid for SIGCHLD; the same on both machines. */
export const SIGINFO_BYTES = 128
export const SIGINFO_PID_OFFSET = 16

/** netdevice(7): struct ifreq is 40 bytes, its flags follow the 16 bytes of the name. */
export const SIOCGIFFLAGS = 0x8913
export const SIOCSIFFLAGS = 0x8914
export const IFREQ_BYTES = 40
export const IFNAMSIZ = 16
export const IFF_UP = 1

/** socket(2) */
export const AF_INET = 2
export const SOCK_DGRAM = 2
export const SOCK_CLOEXEC = 0x80000

/** unix(7), socket(7): struct ucred is pid, uid and gid. */
export const SOL_SOCKET = 1
export const SO_PEERCRED = 17
export const UCRED_BYTES = 12

/** sendmsg(2), cmsg(3): struct msghdr, and room for a control message with one descriptor. */
export const MSG_DONTWAIT = 0x40
export const MSG_NOSIGNAL = 0x4000
export const MSGHDR_BYTES = 56
export const IOVEC_BYTES = 16
export const SCM_RIGHTS = 1
export const CMSG_ONE_DESCRIPTOR = { length: 20, space: 24 } as const

/** open(2), pipe2(2) */
export const O_CLOEXEC = 0x80000

/** close_range(2) */
export const CLOSE_RANGE_CLOEXEC = 4
export const ALL_DESCRIPTORS = 0xffff_ffff

/** getrlimit(2) */
export const RLIMIT_NOFILE = 7
export const RLIMIT_CORE = 4

/** fcntl(2) */
export const F_SETFL = 4
export const F_SETOWN = 8
export const O_ASYNC = 0x2000

/** include/uapi/linux/input.h: struct input_event begins with a struct timeval of 16 bytes. */
export const INPUT_EVENT_BYTES = 24
export const INPUT_EVENT_TYPE_OFFSET = 16
/** _IOC(_IOC_READ, 'E', 0x06, 256) */
export const EVIOCGNAME = 0x81004506
export const INPUT_NAME_BYTES = 256

/** include/uapi/linux/blkpg.h: struct blkpg_ioctl_arg points at a struct blkpg_partition. */
export const BLKPG = 0x1269
export const blkpgOperations = { BLKPG_ADD_PARTITION: 1, BLKPG_RESIZE_PARTITION: 3 } as const
export const BLKPG_ARG_BYTES = 24
export const BLKPG_PARTITION_BYTES = 152

/** fs/ext4/ext4.h: _IOW('f', 16, __u64) */
export const EXT4_IOC_RESIZE_FS = 0x40086610
/** include/uapi/linux/watchdog.h: struct watchdog_info is 40 bytes, its identity follows two words. */
export const WDIOC_GETSUPPORT = 0x80285700
export const WDIOC_GETBOOTSTATUS = 0x80045702
export const WDIOC_KEEPALIVE = 0x80045705
export const WDIOC_SETTIMEOUT = 0xc0045706
export const WATCHDOG_INFO_BYTES = 40
export const WATCHDOG_IDENTITY_OFFSET = 8
export const WDIOF_CARDRESET = 0x20
