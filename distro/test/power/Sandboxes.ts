/**
 * When the kubelet asked containerd for the sandbox of each pod, from
 * containerd's log.
 */

/**
 * Seconds between the first pod's sandbox that was asked for and the one of
 * this pod; NaN when the log has none of it. `%+v` of protobuf, which containerd
 * logs, may have any space and quotes.
 */
export const behindTheFirst = (log: string, pod: string): number => {
  const asked = log.split("\n").flatMap((line) => {
    const [, time, name] =
      /^time="([^"]+)".*RunPodSandbox for .*?\bname:\s*\\?"?([a-z0-9.-]+)/iu.exec(line) ?? []
    return time === undefined || name === undefined ? [] : [{ name, ms: Date.parse(time) }]
  })
  const own = asked.find(({ name }) => name.startsWith(`${pod}-`))
  return own === undefined ? Number.NaN : (own.ms - Math.min(...asked.map(({ ms }) => ms))) / 1000
}
