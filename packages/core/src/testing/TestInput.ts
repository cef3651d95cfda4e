/** Input devices of an in-memory machine: keys are pressed by the test. */
import type { InputEvent } from "../Kernel.ts"
import { ControlFile, type Directory, type KernelDirectory, SpecialFile } from "./TestFiles.ts"

export class InputDevice extends SpecialFile {
  readonly label: string
  readonly listeners = new Set<(event: InputEvent) => void>()
  constructor(name: string) {
    super("character")
    this.label = name
  }
}

export interface Inputs {
  /** A device appears, as `/dev/input/NODE` and in sysfs. */
  readonly add: (node: string, name: string) => void
  /** It tells something; who listens hears it. */
  readonly send: (node: string, event: InputEvent) => void
}

/** @param dev the root of devtmpfs @param sys the root of sysfs */
export const make = (dev: Directory, sys: KernelDirectory): Inputs => {
  const devices = new Map<string, InputDevice>()
  return {
    add: (node, name) => {
      const device = new InputDevice(name)
      devices.set(node, device)
      const found = dev.lookup("input")
      const directory = (found ?? dev.makeDirectory("input", 0o755)) as Directory
      directory.add(node, device)
      sys.within(`class/input/${node}/device`).add("name", new ControlFile(() => `${name}\n`))
    },
    send: (node, event) => {
      for (const listener of devices.get(node)?.listeners ?? []) listener(event)
    },
  }
}
