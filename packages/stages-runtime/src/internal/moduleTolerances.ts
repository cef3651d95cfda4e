/** What the stages that load modules bear: most of what they read need not be there, and what is missing says so itself. */
import type * as Stage from "@kios/core/Stage"

/** What all of the stages do without. */
export const loading = (breaks: ReadonlyArray<string>): ReadonlyArray<Stage.Tolerance> => [
  { operation: "loadModule", errno: ["EEXIST"], because: "it is loaded already", silent: true, breaks },
  { operation: "loadModule", because: "what needs it says so; the rest works", breaks },
  { operation: "readText", path: /\/modules\.dep$/u, because: "all may be built in", breaks },
  {
    operation: "readText",
    path: /\/modules\.(alias|builtin|softdep)$/u,
    errno: ["ENOENT"],
    because: "the image need not have it",
    silent: true,
  },
  {
    operation: "readText",
    path: /\/modules\.(alias|builtin|softdep)$/u,
    because: "what it would have told is done without: drivers, warnings, an order",
  },
  {
    operation: "readText",
    path: /^\/proc\/modules$/u,
    errno: ["ENOENT"],
    because: "this kernel has no modules",
    silent: true,
  },
  {
    operation: "readText",
    path: /^\/proc\/modules$/u,
    because: "loading what is in does no harm",
  },
  {
    operation: "readText",
    path: /\.conf$/u,
    errno: ["ENOENT"],
    because: "it is gone again",
    silent: true,
  },
  { operation: "readText", path: /\.conf$/u, because: "the defaults hold" },
  {
    operation: "readDirectory",
    errno: ["ENOENT"],
    because: "no such bus, and nobody configured anything",
    silent: true,
  },
  { operation: "readDirectory", because: "what is not found so can be listed" },
]

/** What those that look for devices bear. */
export const devices: ReadonlyArray<Stage.Tolerance> = [
  {
    operation: "readText",
    path: /\/modalias$/u,
    because: "a device without one has no driver that is a module, and one may have gone",
    silent: true,
  },
]

/** What switching the kernel's own requests off bears. */
export const requests: ReadonlyArray<Stage.Tolerance> = [
  {
    operation: "writeControl",
    errno: ["ENOENT"],
    because: "this kernel asks for no modules",
    silent: true,
  },
  { operation: "writeControl", because: "the kernel then asks a program that is not there" },
]

/** Whether something is there, where it is about a warning. */
export const looks: Stage.Tolerance = {
  operation: "stat",
  because: "it is about a warning, or a directory that another stage looks into",
  silent: true,
}
