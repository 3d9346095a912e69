// Command clock prints the wall clock of the programs, in milliseconds.
package main

import (
	"fmt"

	"cowork.example.com/broker/internal/telemetry"
)

func main() { fmt.Println(telemetry.Now().UnixMilli()) }
