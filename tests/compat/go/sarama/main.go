// sarama against one cluster: create, produce, consume in a group, describe.
package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"quorate/compat/report"
)

const topic = "sarama"
const group = "sarama"

func config() *sarama.Config {
	made := sarama.NewConfig()
	made.Version = sarama.V4_1_0_0
	made.Producer.Return.Successes = true
	made.Producer.RequiredAcks = sarama.WaitForAll
	made.Consumer.Offsets.Initial = sarama.OffsetOldest
	return made
}

func main() {
	admin, err := sarama.NewClusterAdmin(report.Servers(), config())
	if err != nil {
		panic(err)
	}
	defer admin.Close()

	report.Case("create a topic", func() error {
		detail := &sarama.TopicDetail{NumPartitions: 4, ReplicationFactor: 3}
		return admin.CreateTopic(topic, detail, false)
	})

	report.Case("produce, each codec", func() error {
		codecs := []sarama.CompressionCodec{
			sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy,
			sarama.CompressionLZ4, sarama.CompressionZSTD,
		}
		for index, codec := range codecs {
			chosen := config()
			chosen.Producer.Compression = codec
			if err := produce(chosen, index, len(codecs), report.Records); err != nil {
				return err
			}
		}
		return nil
	})

	report.Case("produce, idempotent", func() error {
		chosen := config()
		chosen.Producer.Idempotent = true
		chosen.Net.MaxOpenRequests = 1
		return produce(chosen, 0, 1, 100)
	})

	report.Case("consume in a group of two", func() error {
		ctx, stop := context.WithTimeout(context.Background(), report.Wait-5*time.Second)
		defer stop()
		reader := &reader{read: map[string]int{}, stop: stop}
		errors := make(chan error, 2)
		for member := 0; member < 2; member++ {
			go func() {
				consumer, err := sarama.NewConsumerGroup(report.Servers(), group, config())
				if err != nil {
					errors <- err
					return
				}
				defer consumer.Close()
				for ctx.Err() == nil {
					if err := consumer.Consume(ctx, []string{topic}, reader); err != nil {
						errors <- err
						return
					}
				}
				errors <- nil
			}()
		}
		for member := 0; member < 2; member++ {
			if err := <-errors; err != nil {
				return err
			}
		}
		for i := 0; i < report.Records; i++ {
			if reader.read[report.Value(i)] == 0 {
				return fmt.Errorf("%d were read, and not %s", len(reader.read), report.Value(i))
			}
		}
		return nil
	})

	report.Case("describe the group, its offsets, topic, configs and disks", func() error {
		groups, err := admin.DescribeConsumerGroups([]string{group})
		if err != nil {
			return err
		}
		if groups[0].Err != sarama.ErrNoError {
			return groups[0].Err
		}
		offsets, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0, 1, 2, 3}})
		if err != nil {
			return err
		}
		if block := offsets.GetBlock(topic, 0); block == nil || block.Offset < 0 {
			return fmt.Errorf("no offset is committed: %v", block)
		}
		topics, err := admin.DescribeTopics([]string{topic})
		if err != nil {
			return err
		}
		if len(topics[0].Partitions) != 4 {
			return fmt.Errorf("topic: %v", topics[0])
		}
		resource := sarama.ConfigResource{Type: sarama.TopicResource, Name: topic}
		if _, err := admin.DescribeConfig(resource); err != nil {
			return err
		}
		brokers, _, err := admin.DescribeCluster()
		if err != nil {
			return err
		}
		logs, err := admin.DescribeLogDirs([]int32{brokers[0].ID()})
		if err != nil {
			return err
		}
		if len(logs) != 1 {
			return fmt.Errorf("log directories: %v", logs)
		}
		return nil
	})

	report.Case("alter a config, add partitions, delete records", func() error {
		days := "86400000"
		entries := map[string]sarama.IncrementalAlterConfigsEntry{
			"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &days},
		}
		if err := admin.IncrementalAlterConfig(sarama.TopicResource, topic, entries, false); err != nil {
			return err
		}
		if err := admin.CreatePartitions(topic, 5, nil, false); err != nil {
			return err
		}
		return admin.DeleteRecords(topic, map[int32]int64{0: 10})
	})

	report.Case("delete the group and the topic", func() error {
		if err := admin.DeleteConsumerGroup(group); err != nil {
			return err
		}
		return admin.DeleteTopic(topic)
	})
}

func produce(chosen *sarama.Config, first, step, end int) error {
	producer, err := sarama.NewSyncProducer(report.Servers(), chosen)
	if err != nil {
		return err
	}
	defer producer.Close()
	var messages []*sarama.ProducerMessage
	for i := first; i < end; i += step {
		value := sarama.StringEncoder(report.Value(i))
		messages = append(messages, &sarama.ProducerMessage{Topic: topic, Key: value, Value: value})
	}
	return producer.SendMessages(messages)
}

type reader struct {
	mutex sync.Mutex
	read  map[string]int
	stop  func()
}

func (*reader) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (*reader) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (r *reader) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		r.mutex.Lock()
		r.read[string(message.Value)]++
		all := len(r.read) == report.Records
		r.mutex.Unlock()
		session.MarkMessage(message, "")
		if all {
			session.Commit()
			r.stop()
		}
	}
	return nil
}
