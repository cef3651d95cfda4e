// Unix sockets: who connects, what is sent, and pipes whose end is given away.
import * as assert from "node:assert/strict"
import { Deferred, Effect, Exit, Queue, Scope } from "effect"
import type { Connection } from "@kios/core/Kernel"
import { group, type K, refused, until } from "./Case.ts"

const { cases, check } = group()
export { cases }

const bytes = (text: string) => Buffer.from(text, "latin1")

/** Listens, and gives each connection to whoever takes it from the queue. */
const accepting = (k: K, path: string, maxConnections = 8) =>
  Effect.gen(function* () {
    const connections = yield* Queue.unbounded<Connection>()
    yield* k.listen({
      path,
      maxConnections,
      serve: (connection) => Effect.andThen(Queue.offer(connections, connection), Effect.never),
    })
    return connections
  })

check(
  "a socket is listened on for root alone, and its name goes with the scope",
  function* (k, dir, { connect }) {
    const path = `${dir}/s.sock`
    const scope = yield* Scope.make()
    yield* Scope.provide(accepting(k, path), scope)
    const stat = yield* k.stat(path)
    assert.deepEqual({ kind: stat?.kind, mode: stat?.mode }, { kind: "socket", mode: 0o600 })
    const client = yield* connect(path)
    yield* Scope.close(scope, Exit.void)
    yield* client.closed
    assert.equal(yield* k.stat(path), undefined)
  },
)
check("a socket is not listened on where something is, and where nothing can be", function* (k, dir) {
  const spec = { maxConnections: 1, serve: () => Effect.never }
  yield* k.writeFile(`${dir}/file`, "")
  yield* refused(Effect.scoped(k.listen({ ...spec, path: `${dir}/file` })), "listen EADDRINUSE")
  yield* refused(Effect.scoped(k.listen({ ...spec, path: `${dir}/missing/s.sock` })), "listen EACCES")
  assert.equal(yield* k.readText(`${dir}/file`), "")
})
check("who listens gets bytes, answers them, and is told the end", function* (k, dir, { connect }) {
  const path = `${dir}/s.sock`
  const connections = yield* accepting(k, path)
  const client = yield* connect(path)
  const connection = yield* Queue.take(connections)
  yield* client.send("hello")
  assert.equal(Buffer.from((yield* connection.receive) ?? []).toString(), "hello")
  yield* connection.send(bytes("wo"))
  yield* connection.send(bytes("rld"))
  assert.equal(yield* client.receive(5), "world")
  yield* client.close
  assert.equal(yield* connection.receive, undefined)
  assert.equal(yield* connection.receive, undefined)
  yield* refused(connection.send(bytes("late")), "write EPIPE")
})
check("who listens knows who connected", function* (k, dir, { connect, pid }) {
  const path = `${dir}/s.sock`
  const connections = yield* accepting(k, path)
  yield* connect(path)
  const { peer } = yield* Queue.take(connections)
  assert.deepEqual(peer, { pid, uid: 0, gid: 0 })
  assert.equal(yield* k.readLink(`/proc/${peer.pid}/ns/pid`), yield* k.readLink("/proc/self/ns/pid"))
})
check(
  "a connection is closed when serving it ends, and what was sent last arrives",
  function* (k, dir, { connect }) {
    const path = `${dir}/s.sock`
    yield* k.listen({ path, maxConnections: 1, serve: ({ send }) => Effect.ignore(send(bytes("bye"))) })
    const client = yield* connect(path)
    assert.equal(yield* client.receive(4), "bye")
    yield* client.closed
  },
)
check("serving that breaks closes its connection and no other", function* (k, dir, { connect }) {
  const path = `${dir}/s.sock`
  const served = yield* Deferred.make<Connection>()
  let first = true
  yield* k.listen({
    path,
    maxConnections: 2,
    serve: (connection) => {
      if (!first) throw new Error("this one breaks")
      first = false
      return Effect.andThen(Deferred.succeed(served, connection), Effect.never)
    },
  })
  const client = yield* connect(path)
  const connection = yield* Deferred.await(served)
  const other = yield* connect(path)
  yield* other.closed
  yield* connection.send(bytes("still here"))
  assert.equal(yield* client.receive(10), "still here")
})
check(
  "more connections than were allowed are closed at once, until one ends",
  function* (k, dir, { connect }) {
    const path = `${dir}/s.sock`
    const connections = yield* accepting(k, path, 1)
    const client = yield* connect(path)
    const connection = yield* Queue.take(connections)
    yield* (yield* connect(path)).closed
    yield* connection.send(bytes("x"))
    assert.equal(yield* client.receive(1), "x")
    yield* k.listen({ path: `${dir}/t.sock`, maxConnections: 1, serve: () => Effect.void })
    yield* (yield* connect(`${dir}/t.sock`)).closed
    yield* (yield* connect(`${dir}/t.sock`)).closed
  },
)
check("who leaves too much unread is told of by EAGAIN, and nobody waits", function* (k, dir, { connect }) {
  const path = `${dir}/s.sock`
  const connections = yield* accepting(k, path)
  yield* connect(path)
  const connection = yield* Queue.take(connections)
  const error = yield* connection.send(Buffer.alloc(4096)).pipe(Effect.repeat({ times: 1000 }), Effect.flip)
  assert.equal(`${error.syscall} ${error.errno}`, "write EAGAIN")
  yield* refused(Effect.scoped(connection.sendPipe(bytes("x"))), "sendmsg EAGAIN")
})
check("a pipe is held until its other end is dropped, and not by init", function* (k, dir, { connect }) {
  const path = `${dir}/s.sock`
  const connections = yield* accepting(k, path)
  const client = yield* connect(path)
  const connection = yield* Queue.take(connections)
  const pipe = yield* connection.sendPipe(bytes("held"))
  let released = false
  yield* Effect.forkScoped(
    Effect.andThen(
      pipe.released,
      Effect.sync(() => {
        released = true
      }),
    ),
  )
  // It is on its way, which holds it too.
  yield* Effect.sleep("20 millis")
  assert.equal(released, false)
  assert.equal(yield* client.receive(4), "held")
  yield* until(Effect.sync(() => released))
  yield* pipe.released
})
check("a pipe is released when its holder is gone", function* (k, dir, { connect }) {
  const path = `${dir}/s.sock`
  const connections = yield* accepting(k, path)
  const client = yield* connect(path)
  const pipe = yield* (yield* Queue.take(connections)).sendPipe(bytes("held"))
  yield* client.close
  yield* pipe.released
})
