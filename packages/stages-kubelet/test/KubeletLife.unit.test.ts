// What the kubelet is started as, and how often, while kubeconfigs come and go.
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { exits, forever, inTurn, prints } from "@kios/core/testing/TestPrograms"
import { BOOTSTRAP, kubeconfig, node, OWN } from "./life.ts"

describe("a node without a kubeconfig", () => {
  it.effect("is standalone, for as long as none comes", () =>
    Effect.gen(function* () {
      const { config, starts, told, up } = yield* node()
      yield* up
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(starts(), [""])
      assert.deepStrictEqual(told(), [])
      const fixed = config("config.d/99-kios.conf")
      assert.deepInclude(fixed, {
        address: "127.0.0.1",
        readOnlyPort: 0,
        authentication: {
          anonymous: { enabled: false },
          webhook: { enabled: false },
          x509: { clientCAFile: null },
        },
      })
    }),
  )
  for (const [what, file, flags] of [
    ["a kubeconfig", OWN, "kubeconfig"],
    ["a bootstrap kubeconfig", BOOTSTRAP, "kubeconfig bootstrap-kubeconfig"],
  ] as const)
    it.effect(`joins when ${what} is written, with one restart`, () =>
      Effect.gen(function* () {
        const { config, machine, starts, told, write } = yield* node()
        yield* write({ [file]: kubeconfig() })
        assert.deepStrictEqual(starts(), ["", flags])
        assert.deepStrictEqual(config()["authorization"], { mode: "Webhook" })
        assert.notProperty(config("config.d/99-kios.conf"), "authentication")
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(starts(), ["", flags])
        assert.deepStrictEqual(told(), [])
        assert.include(
          machine.kmsg.join("\n"),
          "notice kubelet: starting it again, there is a kubeconfig: it joins its cluster",
        )
      }),
    )
  it.effect("joins when one is moved into place", () =>
    Effect.gen(function* () {
      const { machine, starts } = yield* node()
      machine.write({ "/etc/kubernetes/.new": kubeconfig() })
      yield* machine.kernel.rename("/etc/kubernetes/.new", BOOTSTRAP)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(starts().length, 2)
    }),
  )
  it.effect("takes no notice of other files", () =>
    Effect.gen(function* () {
      const { starts, write } = yield* node()
      yield* write({
        "/etc/kubernetes/admin.conf": kubeconfig(),
        "/etc/kubernetes/kubelet.conf.bak": kubeconfig(),
      })
      assert.deepStrictEqual(starts(), [""])
    }),
  )
})

describe("a node that boots", () => {
  it.effect("with a kubeconfig is in the cluster from its first start", () =>
    Effect.gen(function* () {
      const { starts } = yield* node({ files: { [OWN]: kubeconfig() } })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(starts(), ["kubeconfig"])
    }),
  )
  it.effect("with both gives the kubelet both, which knows which it needs", () =>
    Effect.gen(function* () {
      const { starts } = yield* node({ files: { [OWN]: kubeconfig(), [BOOTSTRAP]: kubeconfig() } })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(starts(), ["kubeconfig bootstrap-kubeconfig"])
    }),
  )
  it.effect("with a kubeconfig whose certificate is lost is standalone, so that its static pods run", () =>
    Effect.gen(function* () {
      const lost = "/var/lib/kubelet/pki/kubelet-client-current.pem"
      const { starts, told } = yield* node({
        files: { [OWN]: kubeconfig(undefined, `client-certificate: ${lost}`) },
      })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(starts(), [""])
      assert.deepStrictEqual(told(), [`err error ${OWN}: names ${lost}, which is not there`])
    }),
  )
  it.effect("in the middle of a bootstrap goes on with it", () =>
    Effect.gen(function* () {
      const lost = "/var/lib/kubelet/pki/kubelet-client-current.pem"
      const { starts, told } = yield* node({
        files: { [OWN]: kubeconfig(undefined, `client-certificate: ${lost}`), [BOOTSTRAP]: kubeconfig() },
      })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(starts(), ["kubeconfig bootstrap-kubeconfig"])
      assert.deepStrictEqual(told(), [])
    }),
  )
})

describe("TLS bootstrap", () => {
  it.effect("the kubelet writing its own kubeconfig is no reason to restart it", () =>
    Effect.gen(function* () {
      const { remove, starts, write } = yield* node()
      yield* write({ [BOOTSTRAP]: kubeconfig() })
      yield* write({ [OWN]: kubeconfig() })
      yield* write({ [OWN]: kubeconfig("https://10.0.0.2:6443") })
      // Whoever wrote the token takes it away again.
      yield* remove(BOOTSTRAP)
      assert.deepStrictEqual(starts(), ["", "kubeconfig bootstrap-kubeconfig"])
    }),
  )
  it.effect("nor is it while the kubelet has not ended yet for the restart that was asked for", () =>
    Effect.gen(function* () {
      const { machine, starts } = yield* node({
        program: (self) => Effect.andThen(self.onSignal("SIGTERM", Effect.void), Effect.never),
      })
      machine.write({ [BOOTSTRAP]: kubeconfig() })
      yield* TestClock.adjust("2 seconds")
      machine.write({ [OWN]: kubeconfig() })
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(starts(), ["", "kubeconfig bootstrap-kubeconfig"])
    }),
  )
})

describe("a kubeconfig that is being written", () => {
  const text = kubeconfig()
  it.effect("is waited for, in whatever pieces it comes", () =>
    Effect.gen(function* () {
      const { machine, starts, told } = yield* node()
      for (let end = 0; end < text.length; end += 40) {
        machine.write({ [BOOTSTRAP]: text.slice(0, end) })
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(starts(), [""])
      }
      machine.write({ [BOOTSTRAP]: text })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts(), ["", "kubeconfig bootstrap-kubeconfig"])
      assert.deepStrictEqual(told(), [])
    }),
  )
  it.effect("without a newline at its end is given more time, and then taken", () =>
    Effect.gen(function* () {
      const { machine, starts } = yield* node()
      machine.write({ [BOOTSTRAP]: text.trimEnd() })
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(starts(), [""])
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(starts().length, 2)
    }),
  )
})

describe("a kubeconfig that cannot be used", () => {
  it.effect("is told once, with its reason, and the node stays standalone until it is right", () =>
    Effect.gen(function* () {
      const { starts, told, write } = yield* node()
      yield* write({ [BOOTSTRAP]: "apiVersion: v1\nkind: Secret\n" })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(starts(), [""])
      assert.deepStrictEqual(told(), [`err error ${BOOTSTRAP}:2: is of kind Secret, not Config`])
      yield* write({ [BOOTSTRAP]: kubeconfig() })
      assert.deepStrictEqual(starts(), ["", "kubeconfig bootstrap-kubeconfig"])
    }),
  )
  it.effect("as one that is no file, which init must not wait for", () =>
    Effect.gen(function* () {
      const { machine, starts, told } = yield* node()
      yield* machine.kernel.makeFifo(BOOTSTRAP)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(starts(), [""])
      assert.include(told(), `err error ${BOOTSTRAP}: is a fifo and no file`)
      assert.notInclude(machine.log({ only: ["readText"] }).join(), `read("${BOOTSTRAP}")`)
    }),
  )
  it.effect("does not keep the other one from being used, and is told", () =>
    Effect.gen(function* () {
      const { starts, told } = yield* node({ files: { [OWN]: kubeconfig(), [BOOTSTRAP]: "x" } })
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(starts(), ["kubeconfig"])
      assert.deepStrictEqual(told(), [
        `err error ${BOOTSTRAP}: has no clusters, contexts, current-context, users`,
      ])
    }),
  )
  it.effect("cannot make a node leave its cluster, where API pods would be ended", () =>
    Effect.gen(function* () {
      const { starts, told, write } = yield* node({
        files: { [OWN]: kubeconfig() },
        program: inTurn(exits(1, "1 minute"), forever),
      })
      yield* write({ [OWN]: "" })
      assert.deepStrictEqual(told(), [`err error ${OWN}: is empty`])
      // It died meanwhile, for whatever reason.
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(starts(), ["kubeconfig", "kubeconfig"])
    }),
  )
  it.effect("is told with the kubelet's reason when only the kubelet finds out", () =>
    Effect.gen(function* () {
      const refusal =
        'E1128 run.go:72] "command failed" err="failed to run Kubelet: unable to load bootstrap kubeconfig: no server found"'
      const { starts, told, write } = yield* node({
        files: { [BOOTSTRAP]: kubeconfig() },
        program: inTurn(prints([refusal], exits(1)), forever),
        unready: true,
      })
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(starts(), ["kubeconfig bootstrap-kubeconfig", ""])
      assert.deepStrictEqual(told(), [
        `err error ${BOOTSTRAP}: the kubelet refuses it: unable to load bootstrap kubeconfig: no server found`,
      ])
      yield* write({ [BOOTSTRAP]: kubeconfig("https://10.0.0.9:6443") })
      assert.deepStrictEqual(starts(), [
        "kubeconfig bootstrap-kubeconfig",
        "",
        "kubeconfig bootstrap-kubeconfig",
      ])
    }),
  )
})

describe("a node whose kubeconfigs are gone", () => {
  it.effect("is standalone again, with one restart", () =>
    Effect.gen(function* () {
      const { machine, remove, starts } = yield* node({
        files: { [OWN]: kubeconfig(), [BOOTSTRAP]: kubeconfig() },
      })
      yield* remove(BOOTSTRAP)
      assert.strictEqual(starts().length, 1)
      yield* remove(OWN)
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(starts(), ["kubeconfig bootstrap-kubeconfig", ""])
      assert.include(machine.kmsg.join("\n"), "no kubeconfig is left: it is standalone")
    }),
  )
  it.effect("stays in the cluster when one is only replaced, though not at once", () =>
    Effect.gen(function* () {
      const { machine, starts } = yield* node({ files: { [OWN]: kubeconfig() } })
      yield* machine.kernel.unlink(OWN)
      yield* TestClock.adjust("3 seconds")
      machine.write({ [OWN]: kubeconfig() })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(starts(), ["kubeconfig"])
    }),
  )
  it.effect("joins again when one comes back", () =>
    Effect.gen(function* () {
      const { remove, starts, write } = yield* node({ files: { [OWN]: kubeconfig() } })
      yield* remove(OWN)
      yield* write({ [OWN]: kubeconfig() })
      assert.deepStrictEqual(starts(), ["kubeconfig", "", "kubeconfig"])
    }),
  )
})

describe("the host name", () => {
  it.effect("is looked at before each start, and its change alone is no reason for one", () =>
    Effect.gen(function* () {
      const { machine, starts, write } = yield* node()
      const certificate = machine.read("/run/kios/kubelet/tls.crt")
      yield* write({ "/etc/hostname": "node-8\n" })
      assert.deepStrictEqual(starts(), [""])
      yield* write({ [BOOTSTRAP]: kubeconfig() })
      assert.strictEqual(starts().length, 2)
      assert.notStrictEqual(machine.read("/run/kios/kubelet/tls.crt"), certificate)
    }),
  )
})

describe("inotify", () => {
  for (const errno of ["EMFILE", "ENOSPC", "ENOENT"])
    it.effect(`that is refused (${errno}) only makes it slower, and is told once`, () =>
      Effect.gen(function* () {
        const { machine, starts } = yield* node({
          prepare: (machine) => machine.failOn("watchDirectory", errno),
        })
        machine.write({ [BOOTSTRAP]: kubeconfig() })
        yield* TestClock.adjust("40 seconds")
        assert.strictEqual(starts().length, 2)
        yield* TestClock.adjust("10 minutes")
        assert.strictEqual(machine.kmsg.filter((line) => line.includes("inotify_add_watch")).length, 1)
      }),
    )
  it.effect("is renewed, for a directory that was replaced", () =>
    Effect.gen(function* () {
      const { machine, starts } = yield* node()
      yield* machine.kernel.rename("/etc/kubernetes", "/etc/old")
      yield* machine.kernel.makeDirectory("/etc/kubernetes")
      yield* TestClock.adjust("1 minute")
      machine.write({ [BOOTSTRAP]: kubeconfig() })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(starts().length, 2)
    }),
  )
})
