// KafkaJS against one cluster: create, produce, consume in a group, describe.
const { Kafka, logLevel, CompressionTypes } = require('kafkajs')

const topic = 'kafkajs'
const group = 'kafkajs'
const records = 1000
const wait = 60000
const kafka = new Kafka({
  clientId: 'compat', brokers: process.argv.slice(2), logLevel: logLevel.NOTHING,
})
const admin = kafka.admin()

async function report (name, run) {
  const line = { name, outcome: 'passed', note: '' }
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error('timed out')), wait)
  })
  try {
    await Promise.race([run(), late])
  } catch (error) {
    Object.assign(line, { outcome: 'failed', note: String(error.stack) })
  }
  clearTimeout(timer)
  console.log(JSON.stringify(line))
}

function check (found, what) {
  if (!found) throw new Error(what)
}

async function produce (options, first, step) {
  const producer = kafka.producer(options.producer)
  await producer.connect()
  const messages = []
  for (let i = first; i < records; i += step) messages.push({ key: `key-${i}`, value: `value-${i}` })
  await producer.send({ topic, messages, ...options.send })
  await producer.disconnect()
}

async function consumeInGroup () {
  const read = new Set()
  let all
  const done = new Promise(resolve => { all = resolve })
  const members = [1, 2].map(() => kafka.consumer({ groupId: group }))
  try {
    for (const member of members) {
      await member.connect()
      await member.subscribe({ topics: [topic], fromBeginning: true })
      await member.run({
        eachMessage: async ({ message }) => {
          read.add(message.value.toString())
          if (read.size === records) all()
        },
      })
    }
    await done
    const told = (await admin.describeGroups([group])).groups[0]
    check(told.protocolType === 'consumer', JSON.stringify(told))
  } finally {
    for (const member of members) await member.disconnect()
  }
}

async function main () {
  await admin.connect()
  await report('create a topic', async () => {
    const made = await admin.createTopics({
      topics: [{ topic, numPartitions: 4, replicationFactor: 3 }],
    })
    check(made, 'it was not created')
  })
  await report('produce with acks=all and gzip', async () => {
    await produce({}, 0, 2)
    await produce({ send: { compression: CompressionTypes.GZIP } }, 1, 2)
  })
  await report('produce with acks=1 and 0', async () => {
    await produce({ send: { acks: 1 } }, 0, 100)
    await produce({ send: { acks: 0 } }, 0, 100)
  })
  await report('produce, idempotent', async () => {
    await produce({ producer: { idempotent: true, maxInFlightRequests: 1 } }, 0, 100)
  })
  await report('consume in a group of two', consumeInGroup)
  await report('describe the cluster, topic, configs, offsets', async () => {
    check((await admin.describeCluster()).brokers.length === 3, 'brokers')
    const metadata = await admin.fetchTopicMetadata({ topics: [topic] })
    check(metadata.topics[0].partitions.length === 4, JSON.stringify(metadata))
    const configs = await admin.describeConfigs({
      includeSynonyms: true, resources: [{ type: 2, name: topic }],
    })
    check(configs.resources[0].configEntries.length > 10, JSON.stringify(configs))
    const offsets = await admin.fetchOffsets({ groupId: group, topics: [topic] })
    check(offsets[0].partitions.every(one => Number(one.offset) > 0), JSON.stringify(offsets))
    check((await admin.fetchTopicOffsets(topic)).length === 4, 'ends')
    await admin.fetchTopicOffsetsByTimestamp(topic, 0)
    check((await admin.listGroups()).groups.some(one => one.groupId === group), 'groups')
  })
  await report('alter a config, add partitions, delete records', async () => {
    await admin.alterConfigs({
      validateOnly: false,
      resources: [{
        type: 2, name: topic, configEntries: [{ name: 'retention.ms', value: '86400000' }],
      }],
    })
    await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '10' }] })
  })
  await report('reset the offsets, delete the group and the topic', async () => {
    await admin.resetOffsets({ groupId: group, topic, earliest: true })
    // KafkaJS commits -2 for "the beginning", and reads it back.
    const reset = await admin.fetchOffsets({ groupId: group, topics: [topic] })
    check(reset[0].partitions.every(one => one.offset === '-2'), JSON.stringify(reset))
    await admin.deleteGroups([group])
    await admin.deleteTopics({ topics: [topic] })
  })
  await admin.disconnect()
}

main().then(() => process.exit(0))
