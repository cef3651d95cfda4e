/** The manifests of the distro's pods: least privilege, as data. */
import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import { fileURLToPath } from "node:url"
import * as YAML from "yaml"
import { recipe } from "../../src/recipe.ts"

const directory = fileURLToPath(new URL("../../manifests/", import.meta.url))
/** Not a pod of the system but a template for clouds: docs/cloud-bootstrap.md. */
const templates = ["cloud-bootstrap"]
const manifests = fs
  .readdirSync(directory)
  .map((file) => file.replace(/\.yaml$/u, ""))
  .filter((name) => !templates.includes(name))
const textOf = (name: string) => fs.readFileSync(`${directory}${name}.yaml`, "utf8")

/** What each may do beyond what every program may. */
const capabilities: Readonly<Record<string, ReadonlyArray<string>>> = {
  dhcp: ["NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW"],
  hello: [],
  modules: ["SYS_MODULE"],
  "node-logs": [],
  ntp: ["KILL", "SETGID", "SETUID", "SYS_CHROOT", "SYS_TIME"],
}

const hostPaths: Readonly<Record<string, ReadonlyArray<string>>> = {
  dhcp: ["/etc/resolv.conf", "/run/dhcp"],
  hello: [],
  modules: ["/lib/modules"],
  "node-logs": ["/run/containerd.log", "/run/kubelet.log"],
  ntp: ["/etc/resolv.conf", "/run/dhcp"],
}

describe("the distro's pods", () => {
  it("are all there; modules and debug only where they are asked for", () => {
    assert.deepStrictEqual(manifests.toSorted(), [...Object.keys(capabilities), "debug"].toSorted())
    assert.deepStrictEqual(
      recipe.pods?.map(({ name }) => name).toSorted(),
      manifests.filter((name) => name !== "debug" && name !== "modules").toSorted(),
    )
  })

  const images = new Set(recipe.images.map(({ name }) => name))
  for (const name of manifests) {
    const pod = YAML.parse(textOf(name))
    it(`${name} has an image that the EFI carries, no token, a read-only root and a name like its file's`, () => {
      assert.strictEqual(pod.metadata.name, name)
      assert.isFalse(pod.spec.automountServiceAccountToken)
      for (const { image, imagePullPolicy, securityContext } of pod.spec.containers) {
        assert.isTrue(images.has(image), image)
        assert.strictEqual(imagePullPolicy, "Never")
        assert.isTrue(securityContext.readOnlyRootFilesystem)
      }
    })
    if (name === "debug") continue
    it(`${name} has only the capabilities and host paths that it states`, () => {
      for (const { securityContext } of pod.spec.containers) {
        assert.isUndefined(securityContext.privileged)
        assert.isFalse(securityContext.allowPrivilegeEscalation)
        assert.deepStrictEqual(securityContext.seccompProfile, { type: "RuntimeDefault" })
        assert.deepStrictEqual(securityContext.capabilities.drop, ["ALL"])
        assert.deepStrictEqual((securityContext.capabilities.add ?? []).toSorted(), capabilities[name])
      }
      const mounted = (pod.spec.volumes ?? []).flatMap((volume: { hostPath?: { path: string } }) =>
        volume.hostPath === undefined ? [] : [volume.hostPath.path],
      )
      assert.deepStrictEqual(mounted.toSorted(), hostPaths[name])
      assert.isUndefined(pod.spec.hostPID)
    })
  }

  it("the one that is privileged says why", () => {
    const lines = textOf("debug").split("\n")
    const at = lines.findIndex((line) => line.includes("privileged: true"))
    assert.match(lines[at - 1] ?? "", /# .*operator/u)
  })
})
