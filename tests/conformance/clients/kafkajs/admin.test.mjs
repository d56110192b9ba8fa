import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigResourceTypes, client, consume, produce, texts, unique, until, using, values, withTopic } from './support.mjs'

const administer = use => using(client().admin(), use)

test('topics are made, listed, described and deleted', () =>
  administer(async admin => {
    const topic = unique('kafkajs')
    const made = { topics: [{ topic, numPartitions: 3, replicationFactor: 1 }], waitForLeaders: true }
    assert.equal(await admin.createTopics(made), true)
    assert.equal(await admin.createTopics(made), false)
    assert.ok((await admin.listTopics()).includes(topic))
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    assert.deepEqual(topics[0].partitions.map(p => p.partitionId).sort(), [0, 1, 2])
    for (const partition of topics[0].partitions) assert.equal(partition.leader, 0)
    await admin.deleteTopics({ topics: [topic] })
    await until(async () => !(await admin.listTopics()).includes(topic))
  }))

test('creation can be tried out', () =>
  administer(async admin => {
    const topic = unique('kafkajs')
    await admin.createTopics({ validateOnly: true, waitForLeaders: false, topics: [{ topic }] })
    assert.ok(!(await admin.listTopics()).includes(topic))
  }))

test('wrong topics are refused', () =>
  administer(async admin => {
    for (const wrong of [{ topic: 'no/slash' }, { topic: unique('x'), replicationFactor: 9 }]) {
      const failure = await admin.createTopics({ topics: [wrong] }).then(() => null, error => error)
      assert.ok(failure, JSON.stringify(wrong))
    }
  }))

test('a topic gets more partitions', () =>
  withTopic({}, (_, topic) =>
    administer(async admin => {
      await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
      await until(async () => {
        const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
        return topics[0].partitions.length === 4
      })
    })
  ))

test('configurations are described and altered', () =>
  withTopic({ configEntries: [{ name: 'retention.ms', value: '1234' }] }, (_, topic) =>
    administer(async admin => {
      const read = async () => {
        const answer = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }] })
        return new Map(answer.resources[0].configEntries.map(entry => [entry.configName, entry]))
      }
      assert.equal((await read()).get('retention.ms').configValue, '1234')
      const configEntries = [{ name: 'cleanup.policy', value: 'compact' }]
      await admin.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }] })
      await until(async () => (await read()).get('cleanup.policy').configValue === 'compact')
      assert.equal((await read()).get('retention.ms').configValue, '604800000')
    })
  ))

test('configurations of a broker', () =>
  administer(async admin => {
    const answer = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.BROKER, name: '0' }] })
    const names = answer.resources[0].configEntries.map(entry => entry.configName)
    assert.ok(names.includes('log.retention.ms'), names.join())
  }))

test('the cluster is described', () =>
  administer(async admin => {
    const { brokers, controller, clusterId } = await admin.describeCluster()
    assert.deepEqual(brokers.map(broker => broker.nodeId), [0])
    assert.equal(typeof clusterId, 'string')
    assert.equal(controller, 0)
  }))

test('offsets of topics, also by timestamp', () =>
  withTopic({}, (kafka, topic) =>
    administer(async admin => {
      await produce(kafka, topic, texts(1, 5))
      assert.deepEqual(await admin.fetchTopicOffsets(topic), [{ partition: 0, offset: '5', high: '5', low: '0' }])
      assert.deepEqual(await admin.fetchTopicOffsetsByTimestamp(topic, 1), [{ partition: 0, offset: '0' }])
      const later = Date.now() + 3_600_000
      assert.deepEqual(await admin.fetchTopicOffsetsByTimestamp(topic, later), [{ partition: 0, offset: '5' }])
    })
  ))

test('records are deleted', () =>
  withTopic({}, (kafka, topic) =>
    administer(async admin => {
      await produce(kafka, topic, texts(1, 5))
      assert.equal((await admin.fetchTopicOffsets(topic))[0].low, '0')
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '3' }] })
      assert.equal((await admin.fetchTopicOffsets(topic))[0].low, '3')
      assert.deepEqual(values(await consume(kafka, topic, 2)), texts(4, 5))
    })
  ))

test('groups are listed, described and deleted', () =>
  withTopic({}, (kafka, topic) =>
    administer(async admin => {
      const groupId = unique('group')
      await produce(kafka, topic, ['one'])
      const consumer = kafka.consumer({ groupId })
      await using(consumer, async () => {
        await consumer.subscribe({ topic, fromBeginning: true })
        await consumer.run({ eachMessage: async () => {} })
        await until(async () => (await admin.describeGroups([groupId])).groups[0].state === 'Stable')
        const { groups } = await admin.describeGroups([groupId])
        assert.equal(groups[0].members.length, 1)
        assert.equal(groups[0].protocolType, 'consumer')
        await assert.rejects(admin.deleteGroups([groupId]))
      })
      assert.ok((await admin.listGroups()).groups.some(group => group.groupId === groupId))
      assert.equal((await admin.describeGroups([groupId])).groups[0].state, 'Empty')
      await admin.deleteGroups([groupId])
      assert.ok(!(await admin.listGroups()).groups.some(group => group.groupId === groupId))
    })
  ))

test('offsets of groups are set and reset', () =>
  withTopic({}, (kafka, topic) =>
    administer(async admin => {
      const groupId = unique('group')
      await produce(kafka, topic, texts(1, 10))
      const committed = async () => (await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions[0].offset
      assert.equal(await committed(), '-1')
      await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '7' }] })
      assert.equal(await committed(), '7')
      assert.deepEqual(values(await consume(kafka, topic, 3, { groupId })), texts(8, 10))
      await admin.resetOffsets({ groupId, topic, earliest: true })
      assert.deepEqual(values(await consume(kafka, topic, 10, { groupId })), texts(1, 10))
    })
  ))

test('reassignments are listed', () =>
  administer(async admin => {
    const { topics } = await admin.listPartitionReassignments({})
    assert.deepEqual(topics, [])
  }))
