// Package report runs the cases of one client and prints each as a line of JSON.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Records is how many records a case writes and reads.
const Records = 1000

// Wait is how long a case may take.
const Wait = 60 * time.Second

// Servers returns the addresses of the cluster.
func Servers() []string { return os.Args[1:] }

// Case runs one case. What it returns or panics with is the reason why it failed.
func Case(name string, run func() error) {
	line := map[string]string{"name": name, "outcome": "passed", "note": ""}
	defer func() {
		if cause := recover(); cause != nil {
			line["outcome"], line["note"] = "failed", fmt.Sprint(cause)
		}
		text, _ := json.Marshal(line)
		fmt.Println(string(text))
	}()
	done := make(chan error, 1)
	go func() {
		defer func() {
			if cause := recover(); cause != nil {
				done <- fmt.Errorf("%v", cause)
			}
		}()
		done <- run()
	}()
	select {
	case err := <-done:
		if err != nil {
			panic(err)
		}
	case <-time.After(Wait):
		panic("timed out")
	}
}

// Value returns the value of a record by its number.
func Value(number int) string { return fmt.Sprintf("value-%d", number) }
