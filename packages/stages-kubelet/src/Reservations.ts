/**
 * What the kubelet keeps away from pods, so that pods meet the limits of their
 * own cgroup (`/kubepods`) before the machine runs out of memory or processes.
 *
 * `/kubepods` gets the machine's memory and process numbers less the
 * reservations. Nothing is enforced on `/kios`, where the node's own processes
 * are: a limit there would have the kernel kill the node's own daemons.
 * kubernetes.io/docs/tasks/administer-cluster/reserve-compute-resources.
 */

/** The machine. */
export interface Machine {
  /** Bytes of RAM that the kernel manages: `MemTotal`. */
  readonly memory: number
  /**
   * Bytes of it that no program can have: the image in RAM, the kernel's own, and
   * what the kernel keeps free, below which it kills. It is what is missing from
   * `MemAvailable` and no program has (`AnonPages`).
   */
  readonly taken: number
  /** How many threads the kernel lets exist: `kernel.threads-max`, which grows with the RAM. */
  readonly threads: number
}

/** Bytes that the host's own groups are protected with. */
export interface HostMemory {
  readonly init: number
  readonly runtime: number
  readonly kubelet: number
}

/** These keys of KubeletConfiguration. */
export interface Reservations {
  readonly systemReserved: Readonly<Record<"cpu" | "memory" | "pid", string>>
  readonly kubeReserved: Readonly<Record<"cpu" | "memory" | "pid", string>>
  readonly podPidsLimit: number
}

const MiB = 1024 * 1024

// The kernel's own threads and init; containerd, the kubelet and eleven threads for each of some sixty shims.
const PIDS = { system: 256, kube: 768 }
// A pod needs some, and a machine of any size has room for four such pods.
const POD_PIDS = { least: 256, most: 4096, share: 4 }

/**
 * The reservations.
 *
 * - system: what no cgroup is charged for and no program can have, and init;
 * - kube: the runtime with its shims, and the kubelet;
 * - of a machine that is small for that, not more than half of what is
 *   left then: the kubelet does not start when nothing is left for pods;
 * - one pod may have a quarter of the process numbers, and at most 4096.
 *
 * @example
 * ```ts
 * import { reservations } from "@kios/stages-kubelet/Reservations"
 *
 * const MiB = 1024 * 1024
 * const { kubeReserved } = reservations(
 *   { memory: 2048 * MiB, taken: 425 * MiB, threads: 14_000 },
 *   { init: 48 * MiB, runtime: 144 * MiB, kubelet: 64 * MiB },
 * )
 * kubeReserved.memory // "208Mi"
 * ```
 */
export const reservations = (machine: Machine, host: HostMemory): Reservations => {
  const left = Math.max(0, machine.memory - machine.taken)
  const daemons = host.init + host.runtime + host.kubelet
  const scale = daemons === 0 ? 0 : Math.min(1, left / 2 / daemons)
  const mebibytes = (bytes: number) => `${Math.ceil(bytes / MiB)}Mi`
  const pods = Math.floor((machine.threads - PIDS.system - PIDS.kube) / POD_PIDS.share)
  return {
    systemReserved: {
      cpu: "50m",
      memory: mebibytes(machine.taken + host.init * scale),
      pid: String(PIDS.system),
    },
    kubeReserved: {
      cpu: "50m",
      memory: mebibytes((host.runtime + host.kubelet) * scale),
      pid: String(PIDS.kube),
    },
    podPidsLimit: Math.min(POD_PIDS.most, Math.max(POD_PIDS.least, pods)),
  }
}

/**
 * The machine, by the texts of /proc/meminfo (proc_meminfo(5)) and
 * /proc/sys/kernel/threads-max. A line that is missing counts as 0.
 *
 * @example
 * ```ts
 * import { machineOf } from "@kios/stages-kubelet/Reservations"
 *
 * machineOf("MemTotal: 1024 kB\n", "7000\n").memory // 1048576
 * ```
 */
export const machineOf = (meminfo: string, threadsMax: string): Machine => {
  const bytes = (name: string) =>
    Number(new RegExp(`^${name}:\\s*(\\d+) kB$`, "mu").exec(meminfo)?.[1] ?? 0) * 1024
  const memory = bytes("MemTotal")
  return {
    memory,
    // AnonPages, because containerd may run already, and is in the kubelet's own reservation.
    taken: Math.max(0, memory - bytes("MemAvailable") - bytes("AnonPages")),
    threads: Number.parseInt(threadsMax, 10) || 0,
  }
}
