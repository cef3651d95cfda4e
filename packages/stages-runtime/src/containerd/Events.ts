/**
 * containerd.services.events.v1.Events (api/services/events/v1/events.proto), its envelope
 * (api/types/event.proto) and the task events (api/events/task.proto).
 */
import {
  type Any,
  BinaryWriter,
  decodeAny,
  decodeTimestamp,
  emptyMessage,
  encodeAny,
  text,
  visitFields,
} from "./Proto.ts"
import { writeBytes, writeString } from "./Proto.ts"

export const subscribe = "/containerd.services.events.v1.Events/Subscribe"
export const publish = "/containerd.services.events.v1.Events/Publish"

/** SubscribeRequest: filters = 1; an event is sent when any of them matches. */
export const encodeSubscribeRequest = (filters: ReadonlyArray<string>): Uint8Array => {
  const writer = new BinaryWriter()
  for (const filter of filters) writeString(writer, 1, filter)
  return writer.finish()
}

/** PublishRequest: topic = 1, event = 2. The event is a `google.protobuf.Empty`: the topic says it all. */
export const encodePublishRequest = (topic: string): Uint8Array => {
  const writer = writeString(new BinaryWriter(), 1, topic)
  return writeBytes(writer, 2, encodeAny({ typeUrl: "google.protobuf.Empty", value: emptyMessage })).finish()
}

/** The first process of a container that was started or deleted. */
export interface TaskEvent {
  readonly containerId: string
  readonly pid: number
  /** Set when the event is about a process that was added by exec. */
  readonly execId: string
}

/** An event with its envelope. */
export interface Event {
  /** Nanoseconds since 1970. */
  readonly timestamp: bigint
  readonly topic: string
  /** The event itself for the topics `/tasks/start` and `/tasks/delete`. */
  readonly task: TaskEvent | undefined
}

/** Envelope: timestamp = 1, namespace = 2, topic = 3, event = 4. */
export const decodeEnvelope = (message: Uint8Array): Event => {
  let timestamp = 0n
  let topic = ""
  let event: Any = { typeUrl: "", value: emptyMessage }
  visitFields(message, (f) => {
    if (f.number === 1) timestamp = decodeTimestamp(f.bytes)
    else if (f.number === 3) topic = text(f)
    else if (f.number === 4) event = decodeAny(f.bytes)
  })
  const isTask = topic === "/tasks/start" || topic === "/tasks/delete"
  return { timestamp, topic, task: isTask ? decodeTaskEvent(event.value) : undefined }
}

/** TaskStart and TaskDelete: container_id = 1, pid = 2; TaskDelete: id = 5. */
const decodeTaskEvent = (message: Uint8Array): TaskEvent => {
  let containerId = ""
  let pid = 0
  let execId = ""
  visitFields(message, (f) => {
    if (f.number === 1) containerId = text(f)
    else if (f.number === 2) pid = Number(f.varint)
    else if (f.number === 5) execId = text(f)
  })
  return { containerId, pid, execId: execId === containerId ? "" : execId }
}
