import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Schema } from "effect"
import { createPrivateKey, X509Certificate } from "node:crypto"
import * as TestMachine from "@kios/core/testing/TestMachine"
import { EphemeralFilesystems } from "@kios/core/capabilities/EphemeralFilesystems"
import { Hostname } from "@kios/core/capabilities/Hostname"
import * as KubeletConfig from "@kios/stages-kubelet/KubeletConfig"
import * as KubeletConfigFile from "@kios/stages-kubelet/KubeletConfigFile"
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
  const config = KubeletConfig.standalone({
    containerRuntimeEndpoint: "unix:///run/x.sock",
    staticPodPath: "/m",
    tlsCertFile: "/c",
    tlsPrivateKeyFile: "/k",
  })
  it("is a KubeletConfiguration with what was given", () => {
    assert.deepInclude(config, {
      apiVersion: "kubelet.config.k8s.io/v1beta1",
      kind: "KubeletConfiguration",
      containerRuntimeEndpoint: "unix:///run/x.sock",
      staticPodPath: "/m",
      tlsCertFile: "/c",
      tlsPrivateKeyFile: "/k",
      cgroupDriver: "cgroupfs",
    })
    assert.deepStrictEqual(JSON.parse(JSON.stringify(config)), config)
  })
  it("lets nobody in: no anonymous requests, no webhook, no read-only port", () => {
    assert.deepStrictEqual(config.authentication, {
      anonymous: { enabled: false },
      webhook: { enabled: false },
    })
    assert.strictEqual(config.readOnlyPort, 0)
    assert.strictEqual(config.healthzBindAddress, "127.0.0.1")
  })
  it("runs no programs of others, and keeps to seccomp", () => {
    assert.match(config.volumePluginDir, /^\/lib\//u)
    assert.isTrue(config.seccompDefault)
    assert.isFalse(config.makeIPTablesUtilChains)
  })
})

describe("kubelet-config", () => {
  const before = Layer.merge(
    Layer.succeed(EphemeralFilesystems, { mounted: [] }),
    Layer.succeed(Hostname, { name: "node-7" }),
  )
  const stage = KubeletConfigFile.make({ containerRuntimeEndpoint: "unix:///run/x.sock" })
  const up = (machine: TestMachine.TestMachine) =>
    Layer.build(stage.layer).pipe(Effect.provide(Layer.merge(before, TestMachine.platform(machine))))
  it.effect("writes the configuration, a certificate and its key, for root only", () =>
    Effect.gen(function* () {
      const machine = TestMachine.make()
      const { path } = Context.get(yield* up(machine), KubeletConfigFile.KubeletConfigFile)
      assert.strictEqual(path, "/run/kios/kubelet/config.json")
      assert.strictEqual(machine.modeOf("/run/kios/kubelet"), 0o700)
      const config = JSON.parse(machine.read(path)) as ReturnType<typeof KubeletConfig.standalone>
      assert.strictEqual(config.containerRuntimeEndpoint, "unix:///run/x.sock")
      assert.strictEqual(config.staticPodPath, "/etc/kubernetes/manifests")
      for (const file of [path, config.tlsCertFile, config.tlsPrivateKeyFile])
        assert.strictEqual(machine.modeOf(file), 0o600)
      const certificate = new X509Certificate(machine.read(config.tlsCertFile))
      assert.strictEqual(certificate.subjectAltName, "DNS:node-7")
      assert.isTrue(certificate.checkPrivateKey(createPrivateKey(machine.read(config.tlsPrivateKeyFile))))
    }),
  )
  for (const [what, errno, path] of [
    ["mkdir", "EROFS", undefined],
    ["write", "ENOSPC", "/run/kios/kubelet/tls.crt"],
    ["write", "EIO", "/run/kios/kubelet/tls.key"],
    ["open", "EACCES", "/run/kios/kubelet/config.json"],
  ] as const)
    it.effect(`${what} ${path ?? ""}: ${errno} is a failed boot`, () =>
      Effect.gen(function* () {
        const machine = TestMachine.make()
        machine.failOn(what, errno, path === undefined ? {} : { path })
        const error = yield* Effect.flip(up(machine))
        assert.strictEqual((error as { readonly errno?: string }).errno, errno)
      }),
    )
})
