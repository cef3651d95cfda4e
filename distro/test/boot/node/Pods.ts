/** Static pods: from the EFI, from a data partition, and one that is broken. */
import { assert, type Vitest } from "@effect/vitest"
import { Effect } from "effect"
import { eventuallyAssert, hello, Node } from "../support.ts"

/** What `default/second` tries without CAP_SYS_ADMIN before it sleeps: each line is `WORD EXIT-CODE`. */
export const confinedScript = String.raw`
touch /host/bin/x; echo "write-bin $?"
touch /host/x; echo "write-root $?"
touch /host/lib/x; echo "write-lib $?"
# Volumes of their own: runc mounts them writable, and the filesystem refuses all the same.
touch /host-bin/x; echo "write-direct-bin $?"
touch /host-lib/x; echo "write-direct-lib $?"
mount -o remount,rw,bind /host/bin; echo "remount-bin $?"
mount -o remount,rw,bind /host; echo "remount-root $?"
umount /host/bin; echo "umount-bin $?"
echo "uid $(id -u)"
echo finished
exec sleep 1000000
`

/** Line 4 is none of YAML. */
export const brokenManifest = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: broken\n spec: [\n"

export const pods = (it: Vitest.MethodsNonLive<Node>) => {
  it.effect("answers HTTP from outside once the dhcp pod has got a lease", () =>
    Effect.gen(function* () {
      const page = yield* eventuallyAssert("GET / of the hello pod", hello, (body) =>
        assert.include(body, "static pod on kiOS"),
      )
      assert.isAbove(page.length, 0)
      const { lines } = yield* Node
      const [address] = yield* lines("ip -4 -o addr show | grep -v ' lo ' | head -n 1")
      assert.match(address ?? "", /inet 10\.0\.2\.\d+\/24/)
      const resolv = yield* lines("cat /host/etc/resolv.conf")
      assert.include(resolv, "nameserver 10.0.2.3")
    }),
  )

  it.effect("runs pods whose images nobody has pulled", () =>
    Effect.gen(function* () {
      const { lines } = yield* Node
      const log = yield* lines(
        "grep -c RunPodSandbox /host/run/kios/log/containerd.log; grep -c PullImage /host/run/kios/log/containerd.log || true",
      )
      assert.isAtLeast(Number(log[0]), 4)
      assert.strictEqual(log[1], "0")
    }),
  )

  it.effect("names a manifest with a syntax error on the console, and goes on", () =>
    Effect.gen(function* () {
      const { machine } = yield* Node
      const errors = machine.events().filter((event) => event._tag === "ManifestError")
      assert.deepStrictEqual(
        [...new Set(errors.map(({ file }) => file))],
        ["/etc/kubernetes/manifests/broken.yaml"],
      )
      assert.include(errors[0]?.reason, "yaml: line")
      const line = machine.vm.console.tail().find(({ text }) => text.includes("broken.yaml"))
      assert.match(
        line?.message ?? "",
        /^kios: error .*manifest-error file=\/etc\/kubernetes\/manifests\/broken\.yaml reason=/,
      )
      const failed = machine
        .events()
        .filter((event) => event._tag === "StageFailed" || event._tag === "StageSkipped")
      assert.deepStrictEqual(failed, [])
    }),
  )
}
