import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CompressionTypes, client, consume, produce, texts, tls, using, values, withTopic } from './support.mjs'

const sorted = list => [...list].sort((a, b) => a - b)

for (const acks of [-1, 1, 0]) {
  test(`produce with acks ${acks}`, () =>
    withTopic({}, async (kafka, topic) => {
      const answer = await produce(kafka, topic, texts(1, 20), { acks })
      if (acks !== 0) assert.equal(answer[0].errorCode, 0)
      assert.deepEqual(values(await consume(kafka, topic, 20)), texts(1, 20))
    }))
}

test('produce compressed', () =>
  withTopic({}, async (kafka, topic) => {
    await produce(kafka, topic, texts(1, 500), { compression: CompressionTypes.GZIP })
    assert.deepEqual(values(await consume(kafka, topic, 500)), texts(1, 500))
  }))

test('produce with the idempotent producer', () =>
  withTopic({}, async (kafka, topic) => {
    const settings = { idempotent: true, maxInFlightRequests: 5 }
    await using(kafka.producer(settings), async producer => {
      for (const value of texts(1, 30)) await producer.send({ topic, messages: [{ value }] })
    })
    assert.deepEqual(values(await consume(kafka, topic, 30)), texts(1, 30))
  }))

test('keys, headers, timestamps and null values', () =>
  withTopic({}, async (kafka, topic) => {
    await using(kafka.producer(), producer =>
      producer.send({
        topic,
        messages: [
          { key: 'k', value: 'v', headers: { one: 'a', many: ['b', 'c'] }, timestamp: '1600000000000' },
          { key: 'k', value: null },
        ],
      })
    )
    const [first, second] = await consume(kafka, topic, 2)
    assert.equal(first.key.toString(), 'k')
    assert.equal(first.headers.one.toString(), 'a')
    assert.deepEqual(first.headers.many.map(String), ['b', 'c'])
    assert.equal(first.timestamp, '1600000000000')
    assert.equal(second.value, null)
  }))

test('batches to several topics', () =>
  withTopic({}, (kafka, one) =>
    withTopic({}, async (_, other) => {
      await using(kafka.producer(), producer =>
        producer.sendBatch({
          topicMessages: [one, other].map(topic => ({ topic, messages: [{ value: topic }] })),
        })
      )
      assert.deepEqual(values(await consume(kafka, one, 1)), [one])
      assert.deepEqual(values(await consume(kafka, other, 1)), [other])
    })
  ))

test('partitions by key', () =>
  withTopic({ numPartitions: 4 }, async (kafka, topic) => {
    await using(kafka.producer(), producer =>
      producer.send({ topic, messages: texts(1, 200).map(value => ({ key: `${value % 10}`, value })) })
    )
    const found = await consume(kafka, topic, 200)
    assert.deepEqual(sorted(values(found)), texts(1, 200))
    const places = new Map()
    for (const { key, partition } of found) places.set(`${key}`, (places.get(`${key}`) ?? new Set()).add(partition))
    for (const partitions of places.values()) assert.equal(partitions.size, 1)
  }))

test('a topic is made by the first record', async () => {
  const kafka = client()
  const topic = `auto-${Date.now()}`
  await produce(kafka, topic, ['one'])
  assert.deepEqual(values(await consume(kafka, topic, 1)), ['one'])
})

test('a record that is too large is refused', () =>
  withTopic({}, async (kafka, topic) => {
    const settings = { retry: { retries: 0 } }
    await assert.rejects(produce(kafka, topic, ['x'.repeat(2_000_000)], { settings }), { type: 'MESSAGE_TOO_LARGE' })
  }))

test('TLS', () =>
  withTopic({}, async (_, topic) => {
    const kafka = client({ brokers: [process.env.BOOTSTRAP_SSL], ssl: tls() })
    await produce(kafka, topic, texts(1, 20))
    assert.deepEqual(values(await consume(kafka, topic, 20)), texts(1, 20))
  }))

for (const mechanism of ['plain', 'scram-sha-256', 'scram-sha-512']) {
  const login = password => ({
    brokers: [process.env.BOOTSTRAP_SASL_PLAINTEXT],
    sasl: { mechanism, username: process.env.SASL_USER, password },
  })

  test(`SASL ${mechanism}`, () =>
    withTopic({}, async (_, topic) => {
      const kafka = client(login(process.env.SASL_PASSWORD))
      await produce(kafka, topic, texts(1, 20))
      assert.deepEqual(values(await consume(kafka, topic, 20)), texts(1, 20))
    }))

  test(`SASL ${mechanism} with a wrong password`, async () => {
    const kafka = client({ ...login('wrong'), retry: { retries: 0 } })
    await assert.rejects(kafka.producer().connect(), /authentication failed/i)
  })
}

test('SASL over TLS', () =>
  withTopic({}, async (_, topic) => {
    const kafka = client({
      brokers: [process.env.BOOTSTRAP_SASL_SSL],
      ssl: tls(),
      sasl: { mechanism: 'scram-sha-512', username: process.env.SASL_USER, password: process.env.SASL_PASSWORD },
    })
    await produce(kafka, topic, ['one'])
    assert.deepEqual(values(await consume(kafka, topic, 1)), ['one'])
  }))
