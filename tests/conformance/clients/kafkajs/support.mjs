// What the tests share: a client of the cluster under test, topics, and consuming until enough has arrived.
import { createRequire } from 'node:module'
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'

const require = createRequire(process.env.CONFORMANCE_NODE + '/')
const kafkajs = require('kafkajs')

export const { CompressionTypes, ConfigResourceTypes, KafkaJSProtocolError, PartitionAssigners } = kafkajs

const retry = { initialRetryTime: 100, retries: 8 }

export const client = (settings = {}) =>
  new kafkajs.Kafka({
    clientId: 'conformance',
    brokers: [process.env.BOOTSTRAP],
    logLevel: kafkajs.logLevel.NOTHING,
    retry,
    ...settings,
  })

export const tls = () => ({ ca: [readFileSync(process.env.CA_FILE)], checkServerIdentity: () => undefined })

export const unique = prefix => `${prefix}-${randomUUID().slice(0, 12)}`

// Runs `use` with something that connects and disconnects.
export const using = async (thing, use) => {
  await thing.connect()
  try {
    return await use(thing)
  } finally {
    await thing.disconnect()
  }
}

export const withTopic = async (options, use) => {
  const topic = unique('kafkajs')
  const kafka = client()
  await using(kafka.admin(), admin => admin.createTopics({ waitForLeaders: true, topics: [{ topic, ...options }] }))
  return use(kafka, topic)
}

export const texts = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => `${from + i}`)

export const produce = (kafka, topic, values, { settings = {}, ...options } = {}) =>
  using(kafka.producer(settings), producer =>
    producer.send({ topic, messages: values.map(value => ({ value })), ...options })
  )

export const until = async (condition, timeoutMs = 20000) => {
  const end = Date.now() + timeoutMs
  while (!(await condition())) {
    if (Date.now() > end) throw new Error('waited too long')
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

// Consumes in a group until `count` messages arrived; returns them. `act` may look at the running consumer.
export const consume = async (kafka, topic, count, { groupId = unique('group'), ...settings } = {}) => {
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 100, ...settings })
  const found = []
  await using(consumer, async () => {
    await consumer.subscribe({ topic, fromBeginning: true })
    await consumer.run({ eachMessage: async ({ partition, message }) => void found.push({ partition, ...message }) })
    await until(() => found.length >= count)
  })
  return found
}

export const values = messages => messages.map(({ value }) => value?.toString())
