import assert from 'node:assert/strict'
import { test } from 'node:test'
import { consume, produce, texts, unique, until, using, values, withTopic } from './support.mjs'

const asMember = (kafka, groupId, topic, run) => {
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 100, sessionTimeout: 6000, heartbeatInterval: 300 })
  return { consumer, start: async () => {
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    await consumer.run(run)
  } }
}

test('a group goes on where it committed', () =>
  withTopic({}, async (kafka, topic) => {
    const groupId = unique('group')
    await produce(kafka, topic, texts(1, 10))
    assert.deepEqual(values(await consume(kafka, topic, 10, { groupId })), texts(1, 10))
    await produce(kafka, topic, texts(11, 15))
    assert.deepEqual(values(await consume(kafka, topic, 5, { groupId })), texts(11, 15))
  }))

test('members share the partitions and take over from those that leave', () =>
  withTopic({ numPartitions: 4 }, async (kafka, topic) => {
    const groupId = unique('group')
    const seen = new Set()
    const assigned = [[], []]
    const members = [0, 1].map(number => {
      const eachMessage = async ({ message }) => void seen.add(message.value.toString())
      const member = asMember(kafka, groupId, topic, { eachMessage })
      member.consumer.on(member.consumer.events.GROUP_JOIN, ({ payload }) => {
        assigned[number] = payload.memberAssignment[topic] ?? []
      })
      return member
    })
    const numbers = () => assigned.flat().sort()
    await members[0].start()
    await until(() => assigned[0].length === 4)
    await members[1].start()
    await until(() => assigned[0].length === 2 && assigned[1].length === 2)
    assert.deepEqual(numbers(), [0, 1, 2, 3])
    const messages = texts(1, 40).map(value => ({ value, partition: value % 4 }))
    await using(kafka.producer(), producer => producer.send({ topic, messages }))
    await until(() => seen.size === 40)
    await members[1].consumer.disconnect()
    await until(() => assigned[0].length === 4)
    await members[0].consumer.disconnect()
  }))

test('committing by hand', () =>
  withTopic({}, async (kafka, topic) => {
    const groupId = unique('group')
    await produce(kafka, topic, texts(1, 10))
    let committed = false
    const { consumer, start } = asMember(kafka, groupId, topic, {
      autoCommit: false,
      eachMessage: async ({ message }) => {
        if (message.offset !== '3') return
        await consumer.commitOffsets([{ topic, partition: 0, offset: '4', metadata: 'by hand' }])
        committed = true
      },
    })
    await start()
    await until(() => committed)
    await consumer.disconnect()
    await using(kafka.admin(), async admin => {
      const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [topic] })
      assert.deepEqual(partitions, [{ partition: 0, offset: '4', metadata: 'by hand' }])
    })
    assert.deepEqual(values(await consume(kafka, topic, 6, { groupId })), texts(5, 10))
  }))

test('whole batches, resolved one by one', () =>
  withTopic({}, async (kafka, topic) => {
    await produce(kafka, topic, texts(1, 100))
    const found = []
    let high
    const { consumer, start } = asMember(kafka, unique('group'), topic, {
      eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
        high = batch.highWatermark
        for (const message of batch.messages) {
          found.push(message.value.toString())
          resolveOffset(message.offset)
        }
        await heartbeat()
      },
    })
    await start()
    await until(() => found.length === 100)
    await consumer.disconnect()
    assert.deepEqual(found, texts(1, 100))
    assert.equal(high, '100')
  }))

test('seeking', () =>
  withTopic({}, async (kafka, topic) => {
    await produce(kafka, topic, texts(1, 50))
    const found = []
    const { consumer, start } = asMember(kafka, unique('group'), topic, {
      eachMessage: async ({ message }) => void found.push(message.offset),
    })
    await start()
    consumer.seek({ topic, partition: 0, offset: '45' })
    await until(() => found.slice(-5).join() === '45,46,47,48,49')
    await consumer.disconnect()
  }))

test('pausing and resuming', () =>
  withTopic({}, async (kafka, topic) => {
    const found = []
    const { consumer, start } = asMember(kafka, unique('group'), topic, {
      eachMessage: async ({ message }) => void found.push(message.value.toString()),
    })
    await start()
    await produce(kafka, topic, ['one'])
    await until(() => found.length === 1)
    consumer.pause([{ topic }])
    await produce(kafka, topic, ['two'])
    await new Promise(resolve => setTimeout(resolve, 500))
    assert.deepEqual(found, ['one'])
    consumer.resume([{ topic }])
    await until(() => found.length === 2)
    await consumer.disconnect()
  }))

test('topics that match a pattern', () =>
  withTopic({}, async (kafka, topic) => {
    await produce(kafka, topic, ['one'])
    const found = []
    const consumer = kafka.consumer({ groupId: unique('group'), maxWaitTimeInMs: 100 })
    await using(consumer, async () => {
      await consumer.subscribe({ topic: new RegExp(`^${topic}$`), fromBeginning: true })
      await consumer.run({ eachMessage: async message => void found.push(message.topic) })
      await until(() => found.length === 1)
    })
    assert.deepEqual(found, [topic])
  }))

test('aborted batches are hidden, or shown to who reads uncommitted', () =>
  withTopic({}, async (kafka, topic) => {
    await produce(kafka, topic, texts(1, 3))
    for (const readUncommitted of [true, false])
      assert.deepEqual(values(await consume(kafka, topic, 3, { readUncommitted })), texts(1, 3))
  }))

test('a wait for more bytes ends when they arrive', () =>
  withTopic({}, async (kafka, topic) => {
    const groupId = unique('group')
    let started = 0
    const { consumer, start } = asMember(kafka, groupId, topic, {
      eachMessage: async () => void (started = Date.now() - started),
    })
    await start()
    await new Promise(resolve => setTimeout(resolve, 300))
    started = Date.now()
    await produce(kafka, topic, ['one'])
    await until(() => started < 1_000_000)
    await consumer.disconnect()
    assert.ok(started < 2000, `${started} ms`)
  }))
