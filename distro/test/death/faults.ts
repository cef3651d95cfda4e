/**
 * The deaths of init, by the names that the test's init and its test share, in
 * the order in which one machine goes through them, a boot each.
 */
export const faults = [
  "uncaught-throw",
  "rejected-promise",
  "fiber-defect",
  "empty-event-loop",
  "exit",
  "heap-exhaustion",
  "segmentation-fault",
  "abort",
  "boot-failure",
  "blocked-loop",
] as const

export type Fault = (typeof faults)[number]

/** Where the machine remembers which one is next. */
export const NEXT = "/var/log/next-fault"
