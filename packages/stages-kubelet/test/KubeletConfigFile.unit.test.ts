import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Schema } from "effect"
import { createPrivateKey, X509Certificate } from "node:crypto"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { Cgroups } from "@kios/core/capabilities/Cgroups"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { Hostname } from "@kios/core/capabilities/Hostname"
import * as KubeletConfig from "@kios/stages-kubelet/KubeletConfig"
import * as KubeletConfigFile from "@kios/stages-kubelet/KubeletConfigFile"
import { machineOf, reservations } from "@kios/stages-kubelet/Reservations"
import type { Mode } from "@kios/stages-kubelet/Membership"
import * as ManifestErrors from "@kios/stages-kubelet/ManifestErrors"
import * as SelfSignedCertificate from "@kios/stages-kubelet/SelfSignedCertificate"
import * as der from "../src/internal/der.ts"

describe("SelfSignedCertificate", () => {
  const pair = SelfSignedCertificate.make("node-7.example", new Date(0), 36_500)
  const certificate = new X509Certificate(pair.certificate)
  it("is signed by its own key", () => {
    assert.isTrue(certificate.verify(certificate.publicKey))
    assert.isTrue(certificate.checkPrivateKey(createPrivateKey(pair.privateKey)))
  })
  it("is for the host", () => {
    assert.strictEqual(certificate.subject, "CN=node-7.example")
    assert.strictEqual(certificate.issuer, certificate.subject)
    assert.strictEqual(certificate.subjectAltName, "DNS:node-7.example")
    assert.strictEqual(certificate.checkHost("node-7.example"), "node-7.example")
    assert.isUndefined(certificate.checkHost("other.example"))
  })
  it("is valid from 1970 for a hundred years, so that a machine without a clock can use it", () => {
    assert.strictEqual(certificate.validFromDate.getTime(), 0)
    assert.strictEqual(certificate.validToDate.getTime(), 36_500 * 86_400_000)
  })
  it("is a server's P-256 certificate and no authority", () => {
    assert.isFalse(certificate.ca)
    assert.deepStrictEqual(certificate.keyUsage, ["1.3.6.1.5.5.7.3.1"])
    assert.strictEqual(certificate.publicKey.asymmetricKeyDetails?.namedCurve, "prime256v1")
  })
  it("is a new one each time, with a positive serial number", () => {
    const serials = Array.from(
      { length: 40 },
      () => new X509Certificate(SelfSignedCertificate.make("x", new Date(0), 1).certificate).serialNumber,
    )
    assert.strictEqual(new Set(serials).size, serials.length)
    for (const serial of serials) assert.notMatch(serial, /^-/u)
  })
  it("a date before and one after 2050 are both read back", () => {
    for (const year of [1999, 2026, 2049, 2050, 2200]) {
      const start = new Date(Date.UTC(year, 11, 31, 23, 59, 59))
      const made = new X509Certificate(SelfSignedCertificate.make("x", start, 1).certificate)
      assert.strictEqual(made.validFromDate.getTime(), start.getTime())
      assert.strictEqual(made.validToDate.getTime(), start.getTime() + 86_400_000)
    }
  })
  it("the PEM texts have lines of at most 64 characters", () => {
    for (const line of `${pair.certificate}${pair.privateKey}`.split("\n")) assert.isAtMost(line.length, 64)
  })
})

describe("der", () => {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")
  it("lengths: short, one byte, two bytes", () => {
    assert.strictEqual(hex(der.octets(new Uint8Array(127)).subarray(0, 2)), "047f")
    assert.strictEqual(hex(der.octets(new Uint8Array(128)).subarray(0, 3)), "048180")
    assert.strictEqual(hex(der.octets(new Uint8Array(256)).subarray(0, 4)), "04820100")
    assert.strictEqual(hex(der.sequence()), "3000")
  })
  it("integers are positive and have no needless bytes", () => {
    const integer = (...bytes: ReadonlyArray<number>) => hex(der.integer(Uint8Array.from(bytes)))
    assert.strictEqual(integer(0), "020100")
    assert.strictEqual(integer(0, 0, 1), "020101")
    assert.strictEqual(integer(0x7f), "02017f")
    assert.strictEqual(integer(0x80), "02020080")
    assert.strictEqual(integer(0, 0xff, 1), "020300ff01")
  })
  it("object identifiers", () => {
    assert.strictEqual(hex(der.oid("1.2.840.10045.4.3.2")), "06082a8648ce3d040302")
    assert.strictEqual(hex(der.oid("2.5.29.17")), "0603551d11")
  })
  it("times", () => {
    assert.strictEqual(
      der.time(new Date(Date.UTC(2049, 11, 31, 23, 59, 59))).toString("latin1", 2),
      "491231235959Z",
    )
    assert.strictEqual(der.time(new Date(Date.UTC(2050, 0, 1))).toString("latin1", 2), "20500101000000Z")
  })
  it("booleans, bit strings and tags", () => {
    assert.strictEqual(hex(der.boolean(true)), "0101ff")
    assert.strictEqual(hex(der.bits(Uint8Array.from([1]))), "03020001")
    assert.strictEqual(hex(der.explicit(3, der.boolean(false))), "a303010100")
    assert.strictEqual(hex(der.implicit(2, Buffer.from("a"))), "820161")
  })
})

describe("ManifestErrors", () => {
  const line = (rest: string) =>
    `E1122 03:45:12.000000       1 file.go:186] "Could not process manifest file" ${rest}`
  it("finds file and reason", () => {
    assert.deepStrictEqual(ManifestErrors.parse(line('err="/m/a.yaml: couldn\'t parse" path="/m/a.yaml"')), {
      file: "/m/a.yaml",
      reason: "/m/a.yaml: couldn't parse",
    })
  })
  it("reads what klog escapes", () => {
    assert.deepStrictEqual(ManifestErrors.parse(line('err="bad \\"kind\\"\\nline 2" path="/m/b c.yaml"')), {
      file: "/m/b c.yaml",
      reason: 'bad "kind"\nline 2',
    })
    assert.strictEqual(ManifestErrors.parse(line('err="\\x00" path="/m/c"'))?.reason, '"\\x00"')
  })
  it("says so when there is no reason, and nothing without a file", () => {
    assert.strictEqual(ManifestErrors.parse(line('path="/m/a"'))?.reason, "no reason given")
    assert.isUndefined(ManifestErrors.parse(line('err="x"')))
  })
  it("leaves other lines alone", () => {
    for (const other of ["", "I1122 all is well", 'E1122 "Could not process" path="/m/a"'])
      assert.isUndefined(ManifestErrors.parse(other))
  })
  it.prop("never throws", [Schema.String], ([text]) => {
    ManifestErrors.parse(text)
    ManifestErrors.parse(line(text))
  })
})

describe("KubeletConfig", () => {
  const tls = { tlsCertFile: "/c", tlsPrivateKeyFile: "/k" }
  const options = { containerRuntimeEndpoint: "unix:///run/x.sock", staticPodPath: "/m" }
  const standalone = { _tag: "Standalone" } as const
  const cluster = { _tag: "Cluster", bootstrap: true } as const
  it("is a KubeletConfiguration with what was given, in both parts", () => {
    for (const mode of [standalone, cluster]) {
      const header = { apiVersion: "kubelet.config.k8s.io/v1beta1", kind: "KubeletConfiguration" }
      assert.deepInclude(KubeletConfig.base(mode, tls), { ...header, ...tls })
      assert.deepInclude(KubeletConfig.fixed(mode, options), {
        ...header,
        ...options,
        cgroupDriver: "cgroupfs",
      })
    }
  })
  it("standalone, lets nobody in, whatever its owner has written for a cluster", () => {
    assert.deepInclude(KubeletConfig.fixed(standalone, options), {
      address: "127.0.0.1",
      readOnlyPort: 0,
      authentication: {
        anonymous: { enabled: false },
        webhook: { enabled: false },
        x509: { clientCAFile: null },
      },
      healthzBindAddress: "127.0.0.1",
    })
  })
  it("in a cluster, asks the API server, and has the cluster's certificates", () => {
    const clientCAFile = "/ca"
    assert.deepInclude(KubeletConfig.base(cluster, { ...tls, clientCAFile }), {
      authentication: {
        anonymous: { enabled: false },
        webhook: { enabled: true },
        x509: { clientCAFile },
      },
      authorization: { mode: "Webhook" },
      rotateCertificates: true,
      serverTLSBootstrap: true,
      tlsMinVersion: "VersionTLS13",
      readOnlyPort: 0,
      seccompDefault: true,
    })
    assert.notProperty(KubeletConfig.base(cluster, tls).authentication, "x509")
    for (const key of ["authentication", "authorization", "address"])
      assert.notProperty(KubeletConfig.fixed(cluster, options), key)
  })
  it("is killed after pods, and enforces reservations on pods only", () => {
    const base = KubeletConfig.base(cluster, tls)
    assert.strictEqual(base.oomScoreAdj, -999)
    assert.notProperty(base, "systemReserved")
    const reserved = { systemReserved: { cpu: "1", memory: "1Mi", pid: "1" } } as unknown as ReturnType<
      typeof reservations
    >
    assert.deepInclude(KubeletConfig.base(cluster, { ...tls, reservations: reserved }), reserved)
    const fixed = KubeletConfig.fixed(cluster, options)
    assert.deepInclude(fixed, {
      enforceNodeAllocatable: ["pods"],
      kubeReservedCgroup: null,
      systemReservedCgroup: null,
      systemCgroups: null,
    })
  })
  it("runs no programs of others", () => {
    assert.match(KubeletConfig.fixed(cluster, options).volumePluginDir, /^\/lib\//u)
    assert.isFalse(KubeletConfig.base(cluster, tls).makeIPTablesUtilChains)
  })
})

const MiB = 1024 * 1024

describe("Reservations", () => {
  const host = { init: 48 * MiB, runtime: 144 * MiB, kubelet: 64 * MiB }
  const of = (memory: number, threads: number, taken = 264) =>
    reservations({ memory: memory * MiB, taken: taken * MiB, threads }, host)
  it("keep what no program can have and init for the system, runtime and kubelet for Kubernetes", () => {
    assert.deepStrictEqual(of(1463, 10_074), {
      systemReserved: { cpu: "50m", memory: "312Mi", pid: "256" },
      kubeReserved: { cpu: "50m", memory: "208Mi", pid: "768" },
      podPidsLimit: 2262,
    })
  })
  it("leave half of what can be had to pods, on a machine however small", () => {
    const { kubeReserved, systemReserved } = of(464, 3000)
    const kept = [kubeReserved, systemReserved].map(({ memory }) => Number.parseInt(memory, 10))
    assert.isAtMost(
      kept.reduce((sum, one) => sum + one),
      264 + 101,
    )
    for (const memory of [0, 100, 264])
      assert.deepInclude(of(memory, 0), {
        systemReserved: { cpu: "50m", memory: "264Mi", pid: "256" },
        kubeReserved: { cpu: "50m", memory: "0Mi", pid: "768" },
      })
  })
  it("one pod may have a quarter of the process numbers, between 256 and 4096", () => {
    assert.strictEqual(of(512, 0).podPidsLimit, 256)
    assert.strictEqual(of(512, 5024).podPidsLimit, 1000)
    assert.strictEqual(of(65_536, 500_000).podPidsLimit, 4096)
  })
  it("read what the kernel prints, and count what it does not print as 0", () => {
    const meminfo = "MemTotal:         983776 kB\nMemAvailable:     407388 kB\nAnonPages:        143420 kB\n"
    assert.deepStrictEqual(machineOf(meminfo, "10074\n"), {
      memory: 983_776 * 1024,
      taken: 432_968 * 1024,
      threads: 10_074,
    })
    assert.deepStrictEqual(machineOf("", ""), { memory: 0, taken: 0, threads: 0 })
  })
})

describe("kubelet-config", () => {
  const before = Layer.mergeAll(
    Layer.succeed(EphemeralFilesystems, { mounted: [] }),
    Layer.succeed(Hostname, { name: "node-7" }),
    Layer.succeed(Cgroups, {
      root: "/cg",
      controllers: [],
      init: "/cg/init",
      runtime: "/cg/runtime",
      kubelet: "/cg/kubelet",
      memoryMin: { init: 48 * MiB, runtime: 144 * MiB, kubelet: 64 * MiB },
    }),
  )
  // What the kernel shows where pseudo-filesystems mounts it.
  const made = (options: TestMachine.TestMachineOptions = {}) => {
    const machine = TestMachine.make({ ...options, files: { "/proc/": "", ...options.files } })
    return Effect.as(
      machine.kernel.mount({ source: "proc", target: "/proc", fstype: "proc", flags: [] }),
      machine,
    )
  }
  const stage = KubeletConfigFile.make({ containerRuntimeEndpoint: "unix:///run/x.sock" })
  const up = (machine: TestMachine.TestMachine) =>
    Layer.build(stage.layer).pipe(Effect.provide(Layer.merge(before, TestMachine.platform(machine))))
  const written = (machine: TestMachine.TestMachine, mode: Mode = { _tag: "Standalone" }, name = "node-7") =>
    Effect.flatMap(up(machine), (services) =>
      Context.get(services, KubeletConfigFile.KubeletConfigFile)
        .write(mode, name)
        .pipe(Effect.provide(TestMachine.platform(machine))),
    )
  const DIRECTORY = "/run/kios/kubelet"
  const dropIns = (machine: TestMachine.TestMachine) => machine.kernel.readDirectory(`${DIRECTORY}/config.d`)

  it.effect("writes the configuration, a certificate and its key, for root only", () =>
    Effect.gen(function* () {
      const machine = yield* made()
      assert.deepStrictEqual(yield* written(machine), [
        `--config=${DIRECTORY}/config.json`,
        `--config-dir=${DIRECTORY}/config.d`,
      ])
      assert.strictEqual(machine.modeOf(DIRECTORY), 0o700)
      const config = JSON.parse(machine.read(`${DIRECTORY}/config.json`)) as ReturnType<
        typeof KubeletConfig.base
      >
      // Of its 512 MiB the machine has half to give; half of that is for the daemons, which asked for 256.
      assert.deepStrictEqual((config as unknown as ReturnType<typeof reservations>).kubeReserved, {
        cpu: "50m",
        memory: "104Mi",
        pid: "768",
      })
      assert.deepStrictEqual(yield* dropIns(machine), ["90-node.conf", "99-kios.conf"])
      const fixed = JSON.parse(machine.read(`${DIRECTORY}/config.d/99-kios.conf`)) as object
      assert.deepInclude(fixed, {
        containerRuntimeEndpoint: "unix:///run/x.sock",
        staticPodPath: "/etc/kubernetes/manifests",
      })
      for (const file of [`${DIRECTORY}/config.json`, config.tlsCertFile, config.tlsPrivateKeyFile])
        assert.strictEqual(machine.modeOf(file), 0o600)
      const certificate = new X509Certificate(machine.read(config.tlsCertFile))
      assert.strictEqual(certificate.subjectAltName, "DNS:node-7")
      assert.isTrue(certificate.checkPrivateKey(createPrivateKey(machine.read(config.tlsPrivateKeyFile))))
    }),
  )
  it.effect(
    "has the kubelet merge its owner's files between its own, those that are there at that time",
    () =>
      Effect.gen(function* () {
        const machine = yield* made()
        yield* written(machine)
        machine.write({
          "/etc/kubernetes/config.yaml": "maxPods: 9\n",
          "/etc/kubernetes/kubelet.conf.d/99-z.conf": "x",
          "/etc/kubernetes/kubelet.conf.d/README": "x",
        })
        yield* written(machine)
        assert.deepStrictEqual(yield* dropIns(machine), [
          "10-config.conf",
          "50-99-z.conf",
          "90-node.conf",
          "99-kios.conf",
        ])
        const target = yield* machine.kernel.readLink(`${DIRECTORY}/config.d/10-config.conf`)
        assert.strictEqual(target, "/etc/kubernetes/config.yaml")
        yield* machine.kernel.unlink("/etc/kubernetes/config.yaml")
        machine.write({ "/etc/kubernetes/config.yaml": "" })
        yield* machine.kernel.unlink("/etc/kubernetes/kubelet.conf.d/99-z.conf")
        yield* written(machine)
        assert.deepStrictEqual(yield* dropIns(machine), ["90-node.conf", "99-kios.conf"])
      }),
  )
  it.effect("lets clients of the cluster's authority in when there is its certificate", () =>
    Effect.gen(function* () {
      const machine = yield* made()
      const mode = { _tag: "Cluster", bootstrap: false } as const
      const flags = yield* written(machine, mode)
      assert.deepStrictEqual(flags.slice(2), [
        "--kubeconfig=/etc/kubernetes/kubelet.conf",
        "--cert-dir=/var/lib/kubelet/pki",
      ])
      assert.notInclude(machine.read(`${DIRECTORY}/config.json`), "clientCAFile")
      machine.write({ "/etc/kubernetes/pki/ca.crt": "x" })
      yield* written(machine, mode)
      assert.include(machine.read(`${DIRECTORY}/config.json`), '"clientCAFile": "/etc/kubernetes/pki/ca.crt"')
    }),
  )
  it.effect("finds profiles of /etc/seccomp where the kubelet looks, and leaves what is there", () =>
    Effect.gen(function* () {
      const machine = yield* made()
      yield* written(machine)
      yield* written(machine)
      assert.strictEqual(yield* machine.kernel.readLink("/var/lib/kubelet/seccomp"), "/etc/seccomp")
      const other = yield* made({ files: { "/var/lib/kubelet/seccomp/own.json": "{}" } })
      yield* written(other)
      assert.deepStrictEqual(yield* other.kernel.readDirectory("/var/lib/kubelet/seccomp"), ["own.json"])
    }),
  )
  it.effect("a node of another name has another certificate", () =>
    Effect.gen(function* () {
      const machine = yield* made()
      yield* written(machine, { _tag: "Standalone" }, "node-8")
      const certificate = new X509Certificate(machine.read(`${DIRECTORY}/tls.crt`))
      assert.strictEqual(certificate.subjectAltName, "DNS:node-8")
    }),
  )
  for (const [what, errno, path] of [
    ["mkdir", "EROFS", undefined],
    ["read", "EIO", "/proc/meminfo"],
    ["open", "EMFILE", "/proc/sys/kernel/threads-max"],
    ["write", "ENOSPC", `${DIRECTORY}/tls.crt`],
    ["write", "EIO", `${DIRECTORY}/tls.key`],
    ["open", "EACCES", `${DIRECTORY}/config.json`],
    ["write", "ENOSPC", `${DIRECTORY}/config.d/99-kios.conf`],
    ["scandir", "EIO", "/etc/kubernetes/kubelet.conf.d"],
  ] as const)
    it.effect(`${what} ${path ?? ""}: ${errno} is an error, of the boot or of the start`, () =>
      Effect.gen(function* () {
        const machine = yield* made()
        machine.failOn(what, errno, path === undefined ? {} : { path })
        const error = yield* Effect.flip(written(machine))
        assert.strictEqual((error as { readonly errno?: string }).errno, errno)
      }),
    )
})
