// Prepares this checkout and machine, then does what was asked for:
//
//   node scripts/bootstrap.mjs start | test | soak | bench | check | docs
//
// Runs on the machine's own Node (20 or newer) and on nothing else: the first
// thing it does is to install the rest. In order:
//
//   1. Debian packages that are missing (as root; else it says the command)
//   2. npm packages, when package-lock.json changed since the last time
//   3. the task, on the Node that this project pins
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { accessSync, constants, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = join(dirname(fileURLToPath(import.meta.url)), "..")
const [task, ...rest] = process.argv.slice(2)

// What a program or file needs, by Debian package. Go is not among them: the
// build gets its own when the machine has none.
const programs = {
  "qemu-system-x86_64": "qemu-system-x86",
  "qemu-img": "qemu-utils",
  gcc: "gcc",
  strip: "binutils",
  "pkg-config": "pkg-config",
  depmod: "kmod",
  xz: "xz-utils",
  lz4: "lz4",
  sfdisk: "fdisk",
  mcopy: "mtools",
  mke2fs: "e2fsprogs",
  git: "git",
  openssl: "openssl",
  ip: "iproute2",
  cpio: "cpio",
}
const files = {
  "/usr/share/OVMF/OVMF_CODE_4M.fd": "ovmf",
  "/usr/include/seccomp.h": "libseccomp-dev",
  // gcc only recommends it.
  "/usr/include/stdlib.h": "libc6-dev",
  "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
  "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
}

const onPath = (program) =>
  `${process.env.PATH}:/usr/sbin:/sbin`.split(":").some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })

const fail = (message) => {
  process.stderr.write(`kios: ${message}\n`)
  process.exit(1)
}

const say = (message) => process.stdout.write(`${message}\n`)

const run = (command, args, options = {}) => {
  const result = spawnSync(command, args, { cwd: root, stdio: "inherit", ...options })
  if (result.error !== undefined) fail(`${command} could not be started: ${result.error.message}`)
  return result.status ?? 1
}

const missing = () => [
  ...new Set([
    ...Object.entries(programs).flatMap(([program, name]) => (onPath(program) ? [] : [name])),
    ...Object.entries(files).flatMap(([file, name]) => (existsSync(file) ? [] : [name])),
  ]),
]

const installDebianPackages = () => {
  const packages = missing()
  if (packages.length === 0) return
  const command = `apt-get install -y --no-install-recommends ${packages.join(" ")}`
  if (!onPath("apt-get"))
    fail(`this machine lacks ${packages.join(", ")}, and it is no Debian: install them, then try again`)
  if (process.getuid?.() !== 0)
    fail(`Debian packages are missing, and only root may install them. Run:\n\n  sudo ${command}\n`)
  say(`installing Debian packages: ${packages.join(" ")}`)
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" }
  const quiet = { env, stdio: ["ignore", "ignore", "inherit"] }
  run("apt-get", ["update", "-q"], quiet)
  if (run("apt-get", command.split(" ").slice(1), quiet) !== 0)
    fail(`the packages could not be installed. Is there a network? Try:\n\n  apt-get update && ${command}\n`)
  const still = missing()
  if (still.length > 0) fail(`installed, and yet not found: ${still.join(" ")}`)
}

const installNpmPackages = () => {
  const lock = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex")
  const stamp = join(root, "node_modules/.kios-installed")
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === lock) return
  say("installing npm packages")
  // Not `npm ci`: it insists on an entry for every platform's build of a tool,
  // and a registry mirror need not have them all. Versions and integrity are
  // the lock file's all the same. No package that we use needs its install script.
  const args = ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
  if (run("npm", args) !== 0) fail("npm install failed. Is there a network? Nothing was built; try again")
  mkdirSync(dirname(stamp), { recursive: true })
  writeFileSync(stamp, lock)
}

const tasks = {
  start: ["distro/bin/kios.mjs", "run", "--build", "--timeout", "15m"],
  test: ["--conditions=@kios/source", "scripts/test.ts"],
  check: ["--conditions=@kios/source", "scripts/test.ts", "--only", "check"],
  soak: ["--conditions=@kios/source", "scripts/soak.ts"],
  bench: ["--conditions=@kios/source", "bench/bench.ts"],
  docs: ["--conditions=@kios/source", "scripts/docs.ts"],
}

if (!Object.hasOwn(tasks, task ?? ""))
  fail(`usage: node scripts/bootstrap.mjs ${Object.keys(tasks).join("|")}`)
if (Number(process.versions.node.split(".")[0]) < 20)
  fail(`Node 20 or newer is needed to begin with; this is ${process.version}`)
installDebianPackages()
installNpmPackages()

// Ctrl-C reaches the child by the terminal; it cleans up, and so we wait for it.
process.on("SIGINT", () => {})
const { spawn } = await import("node:child_process")
const child = spawn(
  join(root, `node_modules/node-linux-${process.arch}/bin/node`),
  ["--no-warnings", ...tasks[task], ...rest],
  {
    cwd: root,
    stdio: "inherit",
    // What the task starts by name (vitest's workers, npx) gets the pinned Node too.
    env: { ...process.env, PATH: `${join(root, "node_modules/.bin")}:${process.env.PATH}` },
  },
)
for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal))
child.on("error", (error) => fail(`the task could not be started: ${error.message}`))
child.on("exit", (code, signal) => process.exit(signal === null ? (code ?? 1) : 130))
