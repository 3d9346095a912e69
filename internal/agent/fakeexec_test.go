package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// fakeExecutor is a runtime whose effects outlive agents, and whose Execute does what the test says.
type fakeExecutor struct {
	mu      sync.Mutex
	seed    Seed
	refs    int
	effects map[string]int               // by command id: how often it ran
	calls   []string                     // kinds, in order
	do      func(wire.ExecCommand) error // nil runs; called without the lock, before the effect
	result  func(wire.ExecCommand) wire.ExecResult
	find    func(wire.ExecCommand) (wire.ExecFound, error)
	sink    func(wire.ExecEvent)
	health  wire.ExecHealth
}

// errDied is an executor that cannot say what happened.
var errDied = errors.New("connection lost")

func newFakeExecutor() *fakeExecutor {
	return &fakeExecutor{effects: map[string]int{}, health: wire.ExecHealth{Executor: "fake", State: wire.RuntimeReady}}
}

func (f *fakeExecutor) Run(ctx context.Context, sink func(wire.ExecEvent)) error {
	f.mu.Lock()
	f.sink = sink
	f.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (f *fakeExecutor) Prepare(kind string) string {
	if kind != proof.Prompt.String() {
		return ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refs++
	return fmt.Sprintf("msg_%d", f.refs)
}

func (f *fakeExecutor) Execute(_ context.Context, cmd wire.ExecCommand) (wire.ExecResult, error) {
	f.mu.Lock()
	f.calls = append(f.calls, cmd.Kind)
	do, result := f.do, f.result
	f.mu.Unlock()
	if do != nil {
		if err := do(cmd); err != nil {
			return wire.ExecResult{}, err
		}
	}
	f.ran(cmd.ID)
	if result != nil {
		return result(cmd), nil
	}
	return wire.ExecResult{MessageID: cmd.Ref}, nil
}

// ran counts an effect.
func (f *fakeExecutor) ran(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.effects[id]++
}

func (f *fakeExecutor) count(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.effects[id]
}

func (f *fakeExecutor) total() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

func (f *fakeExecutor) Find(_ context.Context, cmd wire.ExecCommand) (wire.ExecFound, error) {
	f.mu.Lock()
	find, n := f.find, f.effects[cmd.ID]
	f.mu.Unlock()
	if find != nil {
		return find(cmd)
	}
	if n > 0 {
		return wire.ExecFound{State: wire.FoundRan, Result: wire.ExecResult{MessageID: cmd.Ref}}, nil
	}
	return wire.ExecFound{State: wire.FoundAbsent}, nil
}

func (f *fakeExecutor) Requests(context.Context) ([]wire.ExecRequest, error) { return nil, nil }

func (f *fakeExecutor) Health(context.Context) wire.ExecHealth { return f.health }

func (f *fakeExecutor) set(change func(*fakeExecutor)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}
