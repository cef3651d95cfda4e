/**
 * A machine without any network device: it boots, its pods run, and the pods
 * by which an operator looks into it and loads a driver do their work.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import { fileURLToPath } from "node:url"
import { bootNode, minutes, patiently } from "./support.ts"

const manifest = (name: string) =>
  fs.readFileSync(fileURLToPath(new URL(`../../manifests/${name}.yaml`, import.meta.url)), "utf8")

/** Only what no boot loads by itself shows that the pod did it. */
const modules = manifest("modules").replace(`value: "wireguard"`, `value: "dummy wireguard"`)
const debug = manifest("debug").replace(`name: CONSOLE, value: ""`, `name: CONSOLE, value: "tty1"`)

it.live(
  "no network device: everything that needs none works",
  () =>
    Effect.gen(function* () {
      const { logOf, run } = yield* bootNode({
        manifests: { "modules.yaml": modules, "debug.yaml": debug },
        pods: ["default/hello", "dhcp", "ntp", "node-logs", "modules", "debug"].map((name) =>
          name.includes("/") ? name : `kube-system/${name}`,
        ),
      })
      // No adapter: what there is was made by a module, of the kernel or of the pod below.
      assert.strictEqual(yield* run("ls -d /sys/class/net/*/device 2>/dev/null | wc -l"), "0")
      assert.include(yield* run("wget -q -O - http://127.0.0.1:8080/"), "static pod on kiOS")
      // Nobody gave an address: what the image has as resolv.conf is left alone.
      assert.notInclude(yield* run("cat /host/etc/resolv.conf"), "nameserver")

      yield* patiently("modules", logOf("kube-system/modules", "modules"), (text) => {
        assert.include(text, "dummy: loaded")
        assert.include(text, "wireguard: loaded")
      })
      assert.strictEqual(yield* run("grep -c -E '^(dummy|wireguard) ' /proc/modules"), "2")

      // The debug pod has a shell at the terminal, which is of the host's process namespace.
      yield* patiently(
        "a shell at tty1",
        run(
          "for p in /proc/[0-9]*; do [ \"$(readlink $p/fd/0)\" = /dev/tty1 ] && tr '\\0' ' ' <$p/cmdline; done; true",
        ),
        (text) => assert.include(text, "sh -i"),
      )
    }),
  minutes(30),
)
