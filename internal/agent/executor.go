package agent

import (
	"context"

	"cowork.example.com/broker/pkg/wire"
)

// Executor is what runs commands: OpenCode, or the echo of this package. All methods are safe for concurrent use.
type Executor interface {
	// Run owns the executor's goroutines and its runtime until ctx ends, and gives every event to sink in order. sink
	// must not be called after Run has returned.
	Run(ctx context.Context, sink func(wire.ExecEvent)) error
	// Prepare makes the Ref under which a command of this kind will be executed; empty for kinds that need none.
	Prepare(kind string) (ref string)
	// Execute runs cmd once. An *wire.ExecError says that it had no effect and never will have one; any other error
	// that the outcome is not known, and then Find must be asked.
	Execute(ctx context.Context, cmd wire.ExecCommand) (wire.ExecResult, error)
	// Find says what became of a command that was started before, perhaps by an earlier process.
	Find(ctx context.Context, cmd wire.ExecCommand) (wire.ExecFound, error)
	// Requests lists what waits for a person, each with the bytes that were first seen.
	Requests(ctx context.Context) ([]wire.ExecRequest, error)
	// Health is the executor's line of the status page. It does not wait.
	Health(ctx context.Context) wire.ExecHealth
}
