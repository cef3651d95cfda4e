/** containerd.services.tasks.v1.Tasks (api/services/tasks/v1/tasks.proto, api/types/task/task.proto). */
import { BinaryWriter, text, visitFields, writeString, writeTrue } from "./Proto.ts"

export const list = "/containerd.services.tasks.v1.Tasks/List"

export const kill = "/containerd.services.tasks.v1.Tasks/Kill"

/** Status: UNKNOWN = 0, CREATED = 1, RUNNING = 2, STOPPED = 3, PAUSED = 4, PAUSING = 5. */
export type TaskStatus = "UNKNOWN" | "CREATED" | "RUNNING" | "STOPPED" | "PAUSED" | "PAUSING"
const statuses: ReadonlyArray<TaskStatus> = ["UNKNOWN", "CREATED", "RUNNING", "STOPPED", "PAUSED", "PAUSING"]

/** The first process of a container. */
export interface Task {
  readonly containerId: string
  readonly pid: number
  readonly status: TaskStatus
}

/** KillRequest: container_id = 1, signal = 3, all = 4 (every process of the container, and not only its first). */
export const encodeKillRequest = (containerId: string, signal: number, all: boolean): Uint8Array => {
  const writer = writeString(new BinaryWriter(), 1, containerId).tag(3, 0).uint32(signal)
  return (all ? writeTrue(writer, 4) : writer).finish()
}

/** Process: container_id = 1, id = 2, pid = 3, status = 4. */
const decodeProcess = (message: Uint8Array): Task => {
  let containerId = ""
  let id = ""
  let pid = 0
  let status: TaskStatus = "UNKNOWN"
  visitFields(message, (f) => {
    if (f.number === 1) containerId = text(f)
    else if (f.number === 2) id = text(f)
    else if (f.number === 3) pid = Number(f.varint)
    else if (f.number === 4) status = statuses[Number(f.varint)] ?? "UNKNOWN"
  })
  // List fills in `id` with the container's id and leaves `container_id` empty for a task's first process.
  return { containerId: containerId === "" ? id : containerId, pid, status }
}

/** ListTasksResponse: tasks = 1. */
export const decodeListResponse = (message: Uint8Array): ReadonlyArray<Task> => {
  const tasks: Array<Task> = []
  visitFields(message, (f) => {
    if (f.number === 1) tasks.push(decodeProcess(f.bytes))
  })
  return tasks
}
