// kafka-go against one cluster: create, produce, consume in a group, describe.
package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"quorate/compat/report"
)

const topic = "kafka-go"
const group = "kafka-go"

func main() {
	ctx := context.Background()
	client := &kafka.Client{Addr: kafka.TCP(report.Servers()...)}

	report.Case("create a topic", func() error {
		answer, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{
			Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 4, ReplicationFactor: 3}},
		})
		if err != nil {
			return err
		}
		return answer.Errors[topic]
	})

	report.Case("produce with acks=all, each codec", func() error {
		codecs := []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd}
		for index, codec := range codecs {
			writer := &kafka.Writer{
				Addr: kafka.TCP(report.Servers()...), Topic: topic, Balancer: &kafka.Hash{},
				RequiredAcks: kafka.RequireAll, Compression: codec,
			}
			var messages []kafka.Message
			for i := index; i < report.Records; i += len(codecs) {
				value := report.Value(i)
				messages = append(messages, kafka.Message{Key: []byte(value), Value: []byte(value)})
			}
			if err := writer.WriteMessages(ctx, messages...); err != nil {
				return err
			}
			if err := writer.Close(); err != nil {
				return err
			}
		}
		return nil
	})

	report.Case("consume in a group of two", func() error {
		read, mutex := map[string]int{}, sync.Mutex{}
		inner, stop := context.WithTimeout(ctx, report.Wait-5*time.Second)
		defer stop()
		errors := make(chan error, 2)
		for member := 0; member < 2; member++ {
			go func() {
				reader := kafka.NewReader(kafka.ReaderConfig{
					Brokers: report.Servers(), Topic: topic, GroupID: group,
					StartOffset: kafka.FirstOffset, CommitInterval: time.Second,
				})
				defer reader.Close()
				for {
					message, err := reader.FetchMessage(inner)
					if inner.Err() != nil {
						errors <- nil
						return
					}
					if err != nil {
						errors <- err
						return
					}
					mutex.Lock()
					read[string(message.Value)]++
					all := len(read) == report.Records
					mutex.Unlock()
					if err := reader.CommitMessages(inner, message); err != nil && inner.Err() == nil {
						errors <- err
						return
					}
					if all {
						stop()
					}
				}
			}()
		}
		for member := 0; member < 2; member++ {
			if err := <-errors; err != nil {
				return err
			}
		}
		for i := 0; i < report.Records; i++ {
			if read[report.Value(i)] == 0 {
				return fmt.Errorf("%d were read, and not %s", len(read), report.Value(i))
			}
		}
		return nil
	})

	report.Case("describe the group, its offsets, topic and configs", func() error {
		groups, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
		if err != nil {
			return err
		}
		if groups.Groups[0].Error != nil {
			return groups.Groups[0].Error
		}
		offsets, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{
			GroupID: group, Topics: map[string][]int{topic: {0, 1, 2, 3}},
		})
		if err != nil {
			return err
		}
		if len(offsets.Topics[topic]) != 4 {
			return fmt.Errorf("offsets: %v", offsets.Topics)
		}
		metadata, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		if err != nil {
			return err
		}
		if len(metadata.Topics[0].Partitions) != 4 || len(metadata.Brokers) != 3 {
			return fmt.Errorf("metadata: %v", metadata)
		}
		configs, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
			Resources: []kafka.DescribeConfigRequestResource{
				{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic},
			},
		})
		if err != nil {
			return err
		}
		return configs.Resources[0].Error
	})

	report.Case("list offsets by time, end and start", func() error {
		answer, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
			Topics: map[string][]kafka.OffsetRequest{
				topic: {kafka.FirstOffsetOf(0), kafka.LastOffsetOf(0)},
			},
		})
		if err != nil {
			return err
		}
		found := answer.Topics[topic][0]
		if found.Error != nil || found.FirstOffset != 0 || found.LastOffset < 100 {
			return fmt.Errorf("offsets: %v", found)
		}
		return nil
	})

	report.Case("delete the topic", func() error {
		answer, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
		if err != nil {
			return err
		}
		return answer.Errors[topic]
	})
}
