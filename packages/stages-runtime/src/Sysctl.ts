/**
 * Kernel parameters of a Kubernetes node.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kernel } from "@kios/core/Kernel"
import * as Stage from "@kios/core/Stage"
import { Modules } from "@kios/core/capabilities/Modules"
import { PseudoFilesystems } from "@kios/core/capabilities/PseudoFilesystems"
import { Sysctls } from "@kios/core/capabilities/Sysctls"

/** Values by key, as sysctl(8) spells keys. */
export type SysctlTable = Readonly<Record<string, string>>

/**
 * What Kubernetes and its networks need.
 *
 * @example
 * ```ts
 * import * as Sysctl from "@kios/stages-runtime/Sysctl"
 *
 * const unhardened = Sysctl.make(Sysctl.node)
 * ```
 */
export const node: SysctlTable = {
  "net.ipv4.ip_forward": "1",
  "net.ipv6.conf.all.forwarding": "1",
  // A forwarding host ignores router advertisements unless told otherwise.
  "net.ipv6.conf.all.accept_ra": "2",
  "net.ipv6.conf.default.accept_ra": "2",
  "net.bridge.bridge-nf-call-iptables": "1",
  "net.bridge.bridge-nf-call-ip6tables": "1",
  "net.ipv4.tcp_keepalive_time": "600",
  "net.ipv4.tcp_keepalive_intvl": "60",
  // The kubelet sets these too (protectKernelDefaults checks them).
  "vm.overcommit_memory": "1",
  "vm.panic_on_oom": "0",
  "kernel.panic_on_oops": "1",
  "kernel.keys.root_maxkeys": "1000000",
  "kernel.keys.root_maxbytes": "25000000",
  "kernel.pid_max": "262144",
  "fs.inotify.max_user_instances": "8192",
  "fs.inotify.max_user_watches": "524288",
  "fs.aio-max-nr": "1048576",
}

/**
 * What the node's own interfaces need. An interface takes `default` when it
 * appears, and drivers bring theirs before this stage runs; the kernel's `all`
 * does not reach them (Documentation/networking/ip-sysctl.rst: accept_ra).
 *
 * @example
 * ```ts
 * import * as Sysctl from "@kios/stages-runtime/Sysctl"
 *
 * const sysctl = Sysctl.make({ ...Sysctl.node, ...Sysctl.interfaces, ...Sysctl.hardening })
 * ```
 */
export const interfaces: SysctlTable = {
  "net.ipv6.conf.*.accept_ra": "2",
}

/**
 * The Kernel Self Protection Project's settings, as far as pods allow them.
 *
 * @example
 * ```ts
 * import * as Sysctl from "@kios/stages-runtime/Sysctl"
 *
 * // Lets a debugger attach to its own children.
 * const sysctl = Sysctl.make({ ...Sysctl.node, ...Sysctl.hardening, "kernel.yama.ptrace_scope": "1" })
 * ```
 */
export const hardening: SysctlTable = {
  "dev.tty.ldisc_autoload": "0",
  "dev.tty.legacy_tiocsti": "0",
  "fs.protected_symlinks": "1",
  "fs.protected_hardlinks": "1",
  "fs.protected_fifos": "2",
  "fs.protected_regular": "2",
  "fs.suid_dumpable": "0",
  "kernel.kptr_restrict": "2",
  "kernel.dmesg_restrict": "1",
  "kernel.perf_event_paranoid": "3",
  "kernel.randomize_va_space": "2",
  "kernel.unprivileged_bpf_disabled": "1",
  "kernel.yama.ptrace_scope": "2",
  "net.core.bpf_jit_harden": "2",
  "vm.unprivileged_userfaultfd": "0",
  // Nobody is there to serve a core dump: a core_pattern with a pipe would run a program on the host.
  "kernel.core_pattern": "core",
}

/**
 * The file of a key: dots separate directories, except that a slash in a key stands for a dot in a name.
 *
 * @example
 * ```ts
 * import * as Sysctl from "@kios/stages-runtime/Sysctl"
 *
 * Sysctl.pathOf("net.ipv4.conf.eth0/1.forwarding") // "/proc/sys/net/ipv4/conf/eth0.1/forwarding"
 * ```
 */
export const pathOf = (key: string): string =>
  `/proc/sys/${key.replaceAll(/[./]/gu, (separator) => (separator === "." ? "/" : "."))}`

// The kernel's own two, which tables spell out.
const notInterfaces: ReadonlyArray<string> = ["all", "default"]

/** `a.*.b` for each interface that there is in the place of the star. */
const expand = (key: string): Effect.Effect<ReadonlyArray<string>, never, Kernel> => {
  const [before, after] = key.split(".*.")
  if (before === undefined || after === undefined) return Effect.succeed([key])
  return Kernel.use((kernel) => kernel.readDirectory(pathOf(before))).pipe(
    // A name with a dot is spelled with a slash in a key.
    Effect.map((names) => names.filter((name) => !notInterfaces.includes(name))),
    Effect.map((names) => names.map((name) => `${before}.${name.replaceAll(".", "/")}.${after}`)),
    Effect.catch((error) => Effect.as(Effect.logDebug(`${key}: ${error.message}`), [])),
  )
}

/**
 * The stage for tables of one's own. A star in a key stands for every interface: `net.ipv4.conf.*.rp_filter`. A key that this kernel does not have, or a
 * value that it refuses, is told and does not stop the boot.
 *
 * @example
 * ```ts
 * import * as Sysctl from "@kios/stages-runtime/Sysctl"
 *
 * const sysctl = Sysctl.make({ ...Sysctl.node, ...Sysctl.hardening, "net.core.somaxconn": "4096" })
 * ```
 */
export const make = (table: SysctlTable) =>
  Stage.make({
    name: "sysctl",
    description: "kernel parameters of a Kubernetes node",
    // br_netfilter brings its own keys.
    requires: [PseudoFilesystems, Modules],
    provides: [Sysctls],
    tolerates: [
      { operation: "readDirectory", because: "nothing is there to be set", silent: true },
      {
        operation: "writeControl",
        errno: ["ENOENT"],
        because: "this kernel is built without it",
        silent: true,
      },
      { operation: "writeControl", because: "each parameter stands alone" },
    ],
    layer: Layer.effect(
      Sysctls,
      Effect.gen(function* () {
        const kernel = yield* Kernel
        const missing: Array<string> = []
        const settings = yield* Effect.forEach(Object.entries(table), ([key, value]) =>
          Effect.map(expand(key), (keys) => keys.map((one) => [one, value] as const)),
        )
        for (const [key, value] of settings.flat()) {
          yield* Effect.catch(kernel.writeControl(pathOf(key), value), (error) => {
            missing.push(key)
            return error.errno === "ENOENT"
              ? Effect.logDebug(`this kernel has no ${key}`)
              : Effect.logWarning(`${key}=${value}: ${error.message}`)
          })
        }
        return { missing }
      }),
    ),
  })

/**
 * The stage as the reference distro has it.
 *
 * @example
 * ```ts
 * import * as Sysctl from "@kios/stages-runtime/Sysctl"
 *
 * const waitsFor = Sysctl.stage.requires.map((key) => key.key)
 * ```
 */
export const stage = make({ ...node, ...interfaces, ...hardening })
