// franz-go against one cluster: create, produce, consume in a group, describe.
package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"quorate/compat/report"
)

const topic = "franz-go"

func client(options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append(options, kgo.SeedBrokers(report.Servers()...))...)
	if err != nil {
		panic(err)
	}
	return made
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 4*report.Wait)
	defer cancel()
	plain := client()
	defer plain.Close()

	report.Case("create a topic", func() error {
		request := kmsg.NewPtrCreateTopicsRequest()
		one := kmsg.NewCreateTopicsRequestTopic()
		one.Topic, one.NumPartitions, one.ReplicationFactor = topic, 4, 3
		request.Topics = append(request.Topics, one)
		answer, err := request.RequestWith(ctx, plain)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(answer.Topics[0].ErrorCode)
	})

	report.Case("produce, idempotent, each codec", func() error {
		codecs := []kgo.CompressionCodec{
			kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(),
			kgo.Lz4Compression(), kgo.ZstdCompression(),
		}
		for index, codec := range codecs {
			producer := client(kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(codec))
			for i := index; i < report.Records; i += len(codecs) {
				value := report.Value(i)
				producer.Produce(ctx, kgo.KeyStringRecord(value, value), nil)
			}
			err := producer.Flush(ctx)
			producer.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})

	report.Case("produce without idempotence, acks=1 and 0", func() error {
		for _, acks := range []kgo.Acks{kgo.LeaderAck(), kgo.NoAck()} {
			producer := client(kgo.DisableIdempotentWrite(), kgo.RequiredAcks(acks))
			record := &kgo.Record{Topic: topic, Value: []byte("extra")}
			err := producer.ProduceSync(ctx, record).FirstErr()
			producer.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})

	report.Case("consume in a classic group of two", func() error {
		return consume(ctx, "franz-classic")
	})

	report.Case("consume in a KIP-848 group of two", func() error {
		next := context.WithValue(ctx, "opt_in_kafka_next_gen_balancer_beta", true)
		return consume(next, "franz-848", kgo.WithContext(next))
	})

	report.Case("describe the group and the cluster", func() error {
		groups := kmsg.NewPtrDescribeGroupsRequest()
		groups.Groups = []string{"franz-classic"}
		told, err := groups.RequestWith(ctx, plain)
		if err != nil {
			return err
		}
		if err := kerr.ErrorForCode(told.Groups[0].ErrorCode); err != nil {
			return err
		}
		cluster, err := kmsg.NewPtrDescribeClusterRequest().RequestWith(ctx, plain)
		if err != nil {
			return err
		}
		if len(cluster.Brokers) != 3 {
			return fmt.Errorf("brokers: %v", cluster.Brokers)
		}
		logs, err := kmsg.NewPtrDescribeLogDirsRequest().RequestWith(ctx, plain)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(logs.ErrorCode)
	})

	report.Case("delete the topic", func() error {
		request := kmsg.NewPtrDeleteTopicsRequest()
		request.TopicNames = []string{topic}
		one := kmsg.NewDeleteTopicsRequestTopic()
		one.Topic = kmsg.StringPtr(topic)
		request.Topics = append(request.Topics, one)
		answer, err := request.RequestWith(ctx, plain)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(answer.Topics[0].ErrorCode)
	})
}

// consume reads all records with two members, each of which commits what it has read.
func consume(ctx context.Context, group string, options ...kgo.Opt) error {
	ctx, stop := context.WithTimeout(ctx, report.Wait-5*time.Second)
	defer stop()
	read, mutex, done := map[string]int{}, sync.Mutex{}, sync.WaitGroup{}
	for member := 0; member < 2; member++ {
		done.Add(1)
		go func() {
			defer done.Done()
			consumer := client(append(options,
				kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
			defer consumer.Close()
			for ctx.Err() == nil {
				fetched := consumer.PollFetches(ctx)
				mutex.Lock()
				fetched.EachRecord(func(record *kgo.Record) {
					if string(record.Value) != "extra" {
						read[string(record.Value)]++
					}
				})
				all := len(read) == report.Records
				mutex.Unlock()
				if all {
					_ = consumer.CommitUncommittedOffsets(ctx)
					stop()
				}
			}
		}()
	}
	done.Wait()
	for i := 0; i < report.Records; i++ {
		if read[report.Value(i)] == 0 {
			return fmt.Errorf("%d were read, and not %s", len(read), report.Value(i))
		}
	}
	return nil
}
