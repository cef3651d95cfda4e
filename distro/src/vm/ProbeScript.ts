/**
 * The guest's side of {@link import("./Probe.ts")}: a loop for a BusyBox shell
 * (or dash with coreutils and util-linux) that reads requests from a named
 * virtio-serial port and answers them. One request and one line each:
 *
 * ```text
 * host   kios-probe hello ID
 * guest  kios-probe hello ID VERSION
 * host   kios-probe exec ID SECONDS LENGTH BASE64
 * guest  kios-probe out ID BASE64            none or more lines, the same with "err"
 * guest  kios-probe end ID CODE TIMED-OUT OUT-BYTES ERR-BYTES LIMIT
 * guest  kios-probe reject ID REASON
 * ```
 *
 * Anything else on the line is noise and is skipped by both. `LENGTH` counts the
 * characters of the base64 text, so that a request that lost some is rejected.
 */

/**
 * Version of the protocol that the script speaks.
 *
 * @example
 * ```ts
 * import { probeProtocol } from "@kios/distro/vm/Probe"
 *
 * const greeting = `kios-probe hello ${probeProtocol}`
 * ```
 */
export const probeProtocol = 1

/**
 * The name of the port, unless another is chosen.
 *
 * @example
 * ```ts
 * import { defaultProbePort } from "@kios/distro/vm/Probe"
 * import type { Qemu } from "@kios/distro/vm/Qemu"
 *
 * const socket = (vm: Qemu) => vm.ports[defaultProbePort]
 * ```
 */
export const defaultProbePort = "kios-probe"

/**
 * Longest script, bytes: the guest's shell reads its port byte by byte.
 *
 * @example
 * ```ts
 * import { maxScriptBytes } from "@kios/distro/vm/Probe"
 *
 * const fits = (script: string) => Buffer.byteLength(script) <= maxScriptBytes
 * ```
 */
export const maxScriptBytes = 65_536

/**
 * The loop, for `sh -c`. Environment: `KIOS_PROBE_PORT` (name of the port),
 * `KIOS_PROBE_LIMIT` (bytes of each stream that are sent, default 1 MiB).
 *
 * @example
 * ```ts
 * import { probeScript } from "@kios/distro/vm/Probe"
 *
 * const command = ["/bin/sh", "-c", probeScript]
 * ```
 */
export const probeScript = String.raw`
name=${"$"}{KIOS_PROBE_PORT:-${defaultProbePort}}
limit=${"$"}{KIOS_PROBE_LIMIT:-1048576}
pid=
dir=$(mktemp -d 2>/dev/null || mktemp -d -p /dev/shm) || { echo "kios-probe: no directory for temporary files" >&2; exit 1; }
trap 'rm -rf "$dir"; [ -z "$pid" ] || kill -KILL -- "-$pid" 2>/dev/null' EXIT
trap 'exit 0' TERM INT HUP

find_port() {
  for file in /sys/class/virtio-ports/*/name /host/sys/class/virtio-ports/*/name; do
    [ -r "$file" ] && read -r found <"$file" && [ "$found" = "$name" ] || continue
    node=${"$"}{file%/name}
    node=${"$"}{node##*/}
    for dev in /dev /host/dev; do
      [ -c "$dev/$node" ] && echo "$dev/$node" && return
    done
  done
  return 1
}
# A failed redirection of exec would end the shell: try in a subshell first.
until port=$(find_port) && (exec 3<>"$port") 2>/dev/null; do sleep 1; done
exec 3<>"$port"
echo "kios-probe: serving $port"

# The empty line ends whatever a killed writer has left behind.
say() { printf '\nkios-probe %s\n' "$*" >&3; }
send() { head -c "$limit" "$dir/$1" | base64 -w 3000 | sed "s/^/kios-probe $1 $id /" >&3; }
uptime() { read -r seconds rest </proc/uptime; echo "${"$"}{seconds%%.*}"; }

while :; do
  # Nobody at the other end: read fails at once.
  IFS=' ' read -r tag verb id seconds length data <&3 || { sleep 1; continue; }
  [ "$tag" = kios-probe ] && [ -n "$id" ] || continue
  case $verb in
  hello) say "hello $id ${probeProtocol}" ;;
  exec)
    if [ "${"$"}{#data}" != "$length" ]; then say "reject $id length"; continue; fi
    if ! printf %s "$data" | base64 -d >"$dir/script" 2>/dev/null; then say "reject $id base64"; continue; fi
    limit_seconds=$seconds
    started=$(uptime)
    # In the background and in a session of its own: its process group is $pid.
    setsid timeout -s KILL "$limit_seconds" sh "$dir/script" >"$dir/out" 2>"$dir/err" </dev/null 3>&- &
    pid=$!
    wait "$pid"
    code=$?
    late=0
    if [ "$code" -eq 137 ] && [ $(($(uptime) - started)) -ge "$limit_seconds" ]; then
      late=1
      kill -KILL -- "-$pid" 2>/dev/null
    fi
    pid=
    say "begin $id"
    send out
    send err
    say "end $id $code $late $(wc -c <"$dir/out") $(wc -c <"$dir/err") $limit"
    ;;
  esac
done
`.trimStart()

/** What the probe's pod is made of. */
export interface ProbeManifestOptions {
  /** An image with BusyBox that is already on the node. */
  readonly image: string
  /** Default `kios-probe`. */
  readonly name?: string
  /** Default `default`. */
  readonly namespace?: string
  /** Name of the virtio-serial port. Default `kios-probe`. */
  readonly port?: string
  /** The pod sees the host's processes. Default true. */
  readonly hostPID?: boolean
  /** The pod has the host's network. Default true. */
  readonly hostNetwork?: boolean
  /** Path in the image of the shell. Default `/bin/sh`. */
  readonly shell?: string
}

/**
 * A static pod that serves the probe, as JSON (which is YAML too): privileged,
 * on the host's network, with the host's root file system at `/host`. It is for
 * tests only: who writes to its port is root on the node.
 *
 * @example
 * ```ts
 * import { probeManifest } from "@kios/distro/vm/Probe"
 * import { imageNames } from "@kios/distro/recipe"
 *
 * const manifest = probeManifest({ image: imageNames.busybox })
 * ```
 */
export const probeManifest = (options: ProbeManifestOptions): string =>
  `${JSON.stringify(
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: options.name ?? "kios-probe", namespace: options.namespace ?? "default" },
      spec: {
        hostNetwork: options.hostNetwork ?? true,
        hostPID: options.hostPID ?? true,
        enableServiceLinks: false,
        automountServiceAccountToken: false,
        terminationGracePeriodSeconds: 1,
        tolerations: [{ operator: "Exists" }],
        containers: [
          {
            name: "probe",
            image: options.image,
            imagePullPolicy: "Never",
            command: [options.shell ?? "/bin/sh", "-c", probeScript],
            env: [{ name: "KIOS_PROBE_PORT", value: options.port ?? defaultProbePort }],
            securityContext: { privileged: true },
            volumeMounts: [
              { name: "host", mountPath: "/host", mountPropagation: "HostToContainer" },
              { name: "tmp", mountPath: "/tmp" },
            ],
          },
        ],
        volumes: [
          { name: "host", hostPath: { path: "/", type: "Directory" } },
          { name: "tmp", emptyDir: {} },
        ],
      },
    },
    undefined,
    2,
  )}\n`
