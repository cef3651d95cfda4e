/**
 * Modules of Node itself that init needs soon after its start. They are loaded
 * while the start-up snapshot is made, so that at boot they are there: to read,
 * compile and run them took two thirds of the time that `node:http2`, which
 * needs them as well, takes to load (docs/performance.md).
 *
 * Not among them: `node:http2`, `node:http`, `node:tls` and `node:zlib`, which hold
 * what a snapshot cannot hold (Node 24 refuses to write it).
 */
const names = ["node:net", "node:child_process", "node:crypto", "node:string_decoder"] as const

/** Loads them. */
export const preload = (): void => {
  for (const name of names) process.getBuiltinModule(name)
}
