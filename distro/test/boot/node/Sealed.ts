/** Init evaluates its embedded program and nothing else, whoever asks. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect } from "effect"
import { hostProcesses, Node } from "../support.ts"

// On the host, where an attempt that is chrooted to the host finds them.
const directory = "/run/kios-test"
const marker = `${directory}/ran`
const code = `require("fs").writeFileSync("${marker}", "x")`
const script = `${directory}/payload.cjs`
const module = `${directory}/payload.mjs`
const dataUrl = `data:text/javascript,import fs from "node:fs"; fs.writeFileSync("${marker}", "x")`

interface Attempt {
  /** What the refusal says, unless it is init's own word. */
  readonly said?: string
  readonly args?: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string>>
}

const attempts: ReadonlyArray<Attempt> = [
  { args: ["-e", code] },
  { args: ["--eval", code] },
  { args: ["-p", code] },
  { args: [script] },
  { args: [module] },
  { args: ["-"] },
  { args: ["-i"] },
  { args: ["--require", script] },
  { args: ["--import", dataUrl] },
  { args: ["--input-type=module", "-e", `import "${module}"`] },
  { args: ["--experimental-default-type=module", module] },
  { args: ["--test", script] },
  { args: ["--build-snapshot", script] },
  { args: ["--experimental-sea-config", script] },
  { args: ["--inspect=127.0.0.1:9229", "-e", code] },
  { args: ["--inspect-brk=127.0.0.1:9229", script] },
  { env: { NODE_OPTIONS: `--require ${script}` } },
  { env: { NODE_OPTIONS: `--require=${script}` }, args: [script] },
  { env: { NODE_OPTIONS: `--import ${module}` } },
  { env: { NODE_OPTIONS: `--import="${dataUrl.replaceAll('"', "'")}"` } },
  { env: { NODE_OPTIONS: "--inspect=127.0.0.1:9229" } },
  // Node itself refuses this one in a program without options.
  { env: { NODE_REPL_EXTERNAL_MODULE: script }, said: "can't be used with kDisableNodeOptionsEnv" },
  { env: { NODE_PATH: directory, NODE_OPTIONS: "--require payload.cjs" } },
]

const quote = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`

const words = ({ args = [], env = {} }: Attempt): string =>
  ["env", ...Object.entries(env).map(([name, value]) => `${name}=${value}`), "CHROOT", ...args]
    .map((word) => (word === "CHROOT" ? "chroot /host /proc/1/exe" : quote(word)))
    .join(" ")

/** The sockets that listen for TCP, by port. */
const listening = Effect.gen(function* () {
  const { lines } = yield* Node
  const table = yield* lines("cat /proc/net/tcp /proc/net/tcp6")
  return table.flatMap((line) => {
    const [, local = "", , state] = line.trim().split(/\s+/u)
    return state === "0A" ? [Number.parseInt(local.split(":").at(-1) ?? "", 16)] : []
  })
})

export const sealed = (it: Vitest.MethodsNonLive<Node>) => {
  it.effect("no argument and no variable makes /proc/1/exe run JavaScript", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      yield* lines(`
mkdir -p /host${directory}
echo ${quote(code)} >/host${script}
echo ${quote(dataUrl.slice(dataUrl.indexOf(",") + 1))} >/host${module}
`)
      // Each attempt's standard input is a program too, for those that would read it.
      const said = yield* lines(
        attempts
          .map(
            (attempt, index) => `
out=$(echo ${quote(code)} | timeout -s KILL 30 ${words(attempt)} 2>&1); rc=$?
ran=no; [ -e /host${marker} ] && ran=yes; rm -f /host${marker}
echo "${index} $rc $ran $(echo "$out" | tr '\\n' ' ')"`,
          )
          .join("\n"),
        300,
      )
      assert.strictEqual(said.length, attempts.length)
      for (const [index, line] of said.entries()) {
        const what = `${words(attempts[index] ?? {})}: ${line}`
        const [, rc, ran] = line.split(" ")
        assert.strictEqual(ran, "no", what)
        assert.match(rc ?? "", /^[1-9]\d*$/, what)
        assert.include(line, attempts[index]?.said ?? "runs as PID 1 only", what)
        assert.notInclude(line, "Debugger listening", what)
      }
      assert.notInclude(yield* listening, 9229)
    }),
  )

  it.effect("as PID 1 of a namespace it runs its own program and no other", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      // A root with the libraries and a file in place of the kernel log: what
      // init says there shows that it is its own program that runs.
      const attempt = (name: string, before: string, args: string) => String.raw`
root=/tmp/${name}
mkdir -p $root/lib $root/lib64 $root/proc $root/dev $root${directory}
cp /host/lib/*.so* $root/lib/; cp /host/lib64/* $root/lib64/
cp /host${script} $root${script}
mknod $root/dev/null c 1 3; : >$root/dev/kmsg
mount --bind /proc $root/proc
${before} timeout -s KILL 60 unshare -p -f chroot $root /proc/1/exe ${args} </dev/null >$root/out 2>&1 &
for i in $(seq 100); do [ -s $root/dev/kmsg ] && break; sleep 0.3; done
sleep 1
# Whoever has this root ends, and has ended before its mount is taken away.
for i in $(seq 100); do
  left=
  for p in /proc/[0-9]*; do [ "$(readlink $p/root)" = $root ] && left="$left $(basename $p)"; done
  [ -z "$left" ] && break
  kill -KILL $left; sleep 0.3
done
umount $root/proc || exit 1
ran=no; [ -e $root${marker} ] && ran=yes
said=no; grep -q '>kios: ' $root/dev/kmsg && said=yes
echo "${name} ran=$ran said=$said"
rm -rf $root`
      assert.deepStrictEqual(
        yield* lines(
          [
            attempt("arguments", "", `-e ${quote(code)}`),
            attempt("script", "", script),
            attempt("options", `NODE_OPTIONS='--require ${script}'`, ""),
          ].join("\n"),
          200,
        ),
        ["arguments ran=no said=yes", "script ran=no said=yes", "options ran=no said=yes"],
      )
    }),
  )

  it.effect("SIGUSR1 opens no debugger in init", () =>
    Effect.gen(function* () {
      const { lines, machine } = yield* Node
      const before = yield* listening
      yield* lines("kill -USR1 1; kill -USR1 1")
      // Node would listen within milliseconds; it is given seconds.
      const during = yield* lines(
        "for i in $(seq 10); do cat /proc/net/tcp /proc/net/tcp6 | grep -ci ':240D .* 0A ' || true; sleep 0.3; done",
      )
      assert.deepStrictEqual([...new Set(during)], ["0"])
      assert.deepStrictEqual([...(yield* listening)].sort(), [...before].sort())
      assert.notInclude(yield* lines("cat /proc/1/task/*/comm"), "SignalInspector")
      assert.isTrue((yield* hostProcesses).some(({ exe, pid }) => pid === 1 && exe === "/init"))
      assert.isFalse(machine.vm.console.tail().some(({ text }) => text.includes("Debugger")))
      yield* lines(`rm -rf /host${directory}`)
    }),
  )
}
