// Block devices: writing in place, partitions that the kernel is told of, and an ext4 that grows while it is mounted.
import * as assert from "node:assert/strict"
import { Effect } from "effect"
import { group, type K, refused, until } from "./Case.ts"
import { loadWithNeeds } from "./moduleCases.ts"

const { cases, check, checkMachine } = group()
export { cases }

const MIB = 2 ** 20

check("writeAt writes in place, lengthens, and neither creates nor truncates", function* (k, dir) {
  const bytes = (text: string) => Buffer.from(text)
  yield* refused(k.writeAt(`${dir}/missing`, 0, bytes("x")), "open ENOENT")
  yield* refused(k.writeAt(dir, 0, bytes("x")), "open EISDIR")
  yield* k.writeFile(`${dir}/file`, "0123456789")
  yield* k.writeAt(`${dir}/file`, 3, bytes("abc"))
  assert.equal(yield* k.readText(`${dir}/file`), "012abc6789")
  yield* k.writeAt(`${dir}/file`, 12, bytes("end"))
  assert.equal(yield* k.readText(`${dir}/file`), "012abc6789\0\0end")
  yield* k.writeAt(`${dir}/file`, 0, bytes(""))
  assert.equal(yield* k.readText(`${dir}/file`), "012abc6789\0\0end")
})

const number = (k: K, path: string) => Effect.map(k.readText(path), Number)

/** The machine's disk: partition 1 has an ext4, and what is behind it is free. */
const disk = Effect.fnUntraced(function* (k: K) {
  if ((yield* k.stat("/sys/block/vda")) === undefined) yield* loadWithNeeds(k, "virtio_blk")
  yield* until(Effect.map(k.stat("/dev/vda1"), (stat) => stat?.kind === "block"))
  const start = (yield* number(k, "/sys/block/vda/vda1/start")) * 512
  const length = (yield* number(k, "/sys/block/vda/vda1/size")) * 512
  const bytes = (yield* number(k, "/sys/block/vda/size")) * 512
  assert.ok(start + length + 3 * MIB < bytes, "there is room behind the partition")
  return { start, length, bytes }
})

checkMachine("a disk is written where it is told, and not beyond its end", function* (k) {
  const { bytes } = yield* disk(k)
  const written = Buffer.from("written in place")
  yield* k.writeAt("/dev/vda", bytes - MIB + 5, written)
  assert.deepEqual(Buffer.from(yield* k.readAt("/dev/vda", bytes - MIB + 5, written.length)), written)
  yield* refused(k.writeAt("/dev/vda", bytes - 4, written), "write ENOSPC")
  assert.deepEqual(Buffer.from(yield* k.readAt("/dev/vda", bytes - 4, 16)), written.subarray(0, 4))
  assert.equal((yield* k.readAt("/dev/vda", bytes, 16)).length, 0)
})
checkMachine("the kernel takes a partition that fits, and refuses others", function* (k, dir) {
  const { bytes, length, start } = yield* disk(k)
  const free = { number: 5, start: bytes - 2 * MIB, length: MIB }
  yield* refused(k.addPartition("/dev/nosuch", free), "open ENOENT")
  yield* refused(k.addPartition("/dev/null", free), "ioctl ENOTTY")
  yield* refused(k.addPartition(dir, free), "ioctl ENOTTY")
  yield* refused(k.addPartition("/dev/vda1", free), "ioctl EINVAL")
  yield* refused(k.addPartition("/dev/vda", { ...free, number: 0 }), "ioctl EINVAL")
  yield* refused(k.addPartition("/dev/vda", { ...free, length: 100 }), "ioctl EINVAL")
  yield* refused(k.addPartition("/dev/vda", { ...free, length: 3 * MIB }), "ioctl EINVAL")
  yield* refused(k.addPartition("/dev/vda", { ...free, number: 1 }), "ioctl EBUSY")
  yield* refused(k.addPartition("/dev/vda", { ...free, start: start + length - MIB }), "ioctl EBUSY")
  assert.equal(yield* k.stat("/sys/block/vda/vda5"), undefined)
  yield* k.addPartition("/dev/vda", free)
  assert.equal(yield* number(k, "/sys/block/vda/vda5/start"), free.start / 512)
  assert.equal(yield* number(k, "/sys/block/vda/vda5/size"), free.length / 512)
  assert.equal(yield* number(k, "/sys/block/vda/vda5/partition"), 5)
  assert.equal((yield* k.stat("/dev/vda5"))?.kind, "block")
  assert.equal((yield* k.readAt("/dev/vda5", MIB - 4, 16)).length, 4)
  yield* refused(k.addPartition("/dev/vda", free), "ioctl EBUSY")

  yield* refused(k.resizePartition("/dev/vda", { ...free, number: 7 }), "ioctl ENXIO")
  yield* refused(k.resizePartition("/dev/vda", { ...free, start: free.start + 512 }), "ioctl EINVAL")
  yield* refused(k.resizePartition("/dev/vda1", { ...free, number: 1 }), "ioctl EINVAL")
  const over = { number: 1, start, length: free.start - start + 512 }
  yield* refused(k.resizePartition("/dev/vda", over), "ioctl EBUSY")
  yield* k.resizePartition("/dev/vda", { ...free, length: MIB / 2 })
  assert.equal(yield* number(k, "/sys/block/vda/vda5/size"), MIB / 2 / 512)
})

const blocksOf = Effect.fnUntraced(function* (k: K) {
  const superblock = Buffer.from(yield* k.readAt("/dev/vda1", 1024, 1024))
  return { blocks: superblock.readUInt32LE(4), blockBytes: 1024 * 2 ** superblock.readUInt32LE(0x18) }
})

checkMachine(
  "an ext4 grows while it is mounted, to its device and not beyond, and does not shrink",
  function* (k, dir) {
    const { bytes, length, start } = yield* disk(k)
    const target = `${dir}/mounted`
    yield* k.makeDirectory(target)
    yield* refused(k.resizeFilesystem(target, 1000), "ioctl ENOTTY")
    yield* refused(k.resizeFilesystem(`${dir}/missing`, 1000), "open ENOENT")
    yield* k.mount({ source: "/dev/vda1", target, fstype: "ext4", flags: [] })
    yield* k.writeFile(`${target}/kept`, "kept")
    const { blockBytes, blocks } = yield* blocksOf(k)
    const larger = { number: 1, start, length: bytes - 3 * MIB - start }
    yield* refused(k.resizeFilesystem(target, larger.length / blockBytes), "ioctl ENOSPC")
    yield* k.resizePartition("/dev/vda", larger)
    assert.equal(yield* number(k, "/sys/block/vda/vda1/size"), larger.length / 512)
    yield* refused(k.resizeFilesystem(target, blocks - 1), "ioctl EINVAL")
    const goal = Math.floor(larger.length / blockBytes)
    assert.ok(goal > length / blockBytes)
    yield* k.resizeFilesystem(target, goal)
    yield* k.resizeFilesystem(target, goal)
    assert.deepEqual(yield* blocksOf(k), { blocks: goal, blockBytes })
    assert.equal(yield* k.readText(`${target}/kept`), "kept")
    yield* k.umount(target)
  },
)
