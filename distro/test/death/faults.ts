/**
 * The deaths of init, by the names that the test's init and its test share.
 */

/** What init goes on after: one boot has them all. */
export const survived = ["uncaught-throw", "rejected-promise", "fiber-defect", "empty-event-loop"] as const

/** What ends a boot each, in the order in which one machine goes through them. */
export const fatal = [
  "exit",
  "heap-exhaustion",
  "segmentation-fault",
  "abort",
  // Without the hardware's watchdog.
  "blocked-loop-soft",
  "boot-failure",
  // The boot after it asks the hardware, which must have its driver again.
  "blocked-loop",
] as const

export type Survived = (typeof survived)[number]
export type Fatal = (typeof fatal)[number]
