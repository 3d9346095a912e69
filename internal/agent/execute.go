package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/internal/topology"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// maxAtOnce is how many commands of one pairing run at the same time.
const maxAtOnce = 64

// scheduler runs commands: create_session and prompt one after another within their session, everything else at once
// (mailbox.md, "At the desktop").
type scheduler struct {
	mu     sync.Mutex
	ctx    context.Context // of the run; nil before begin
	queues map[string][]func(context.Context)
	slots  chan struct{}
	wg     sync.WaitGroup
}

// begin lets the scheduler run until ctx ends. It may begin once.
func (s *scheduler) begin(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx != nil {
		return errors.New("the pairing runs already")
	}
	s.ctx, s.queues, s.slots = ctx, map[string][]func(context.Context){}, make(chan struct{}, maxAtOnce)
	return nil
}

// wait returns when everything that ran has ended. Nothing begins once the context of begin has ended.
func (s *scheduler) wait() {
	s.mu.Lock()
	s.mu.Unlock() //nolint:staticcheck // whoever adds holds mu and looks at ctx
	s.wg.Wait()
}

// once runs job at once, in a goroutine of its own.
func (s *scheduler) once(job func(context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || s.ctx.Err() != nil {
		return // what is in the journal is taken up at the next start
	}
	s.wg.Go(func() { s.inSlot(job) })
}

// queue runs job after all that were queued under the same key.
func (s *scheduler) queue(key string, job func(context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || s.ctx.Err() != nil {
		return
	}
	s.queues[key] = append(s.queues[key], job)
	if len(s.queues[key]) == 1 {
		s.wg.Go(func() { s.drain(key) })
	}
}

// drain runs a queue until it is empty.
func (s *scheduler) drain(key string) {
	for {
		s.mu.Lock()
		list := s.queues[key]
		if len(list) == 0 || s.ctx.Err() != nil {
			delete(s.queues, key)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		s.inSlot(list[0])
		s.mu.Lock()
		s.queues[key] = s.queues[key][1:]
		s.mu.Unlock()
	}
}

func (s *scheduler) inSlot(job func(context.Context)) {
	select {
	case s.slots <- struct{}{}:
	case <-s.ctx.Done():
		return
	}
	defer func() { <-s.slots }()
	job(s.ctx)
}

// performer carries out one kind of command after everything was checked.
type performer func(ctx context.Context, row journal.Row, s journal.Surface) (wire.ExecResult, error)

// performerOf is the registry's handler of a capability.
func (p *pairingRun) performerOf(c topology.Capability) (performer, bool) {
	switch c.Kind {
	case proof.RevokeSurface:
		return p.performRevokeSurface, true
	case proof.RevokePairing:
		return p.performRevokePairing, true
	}
	return func(ctx context.Context, row journal.Row, _ journal.Surface) (wire.ExecResult, error) {
		return p.agent.exec.Execute(ctx, row.Exec)
	}, true
}

// schedule hands a received command to the scheduler.
func (p *pairingRun) schedule(row journal.Row) { p.scheduleJob(row, p.execute) }

func (p *pairingRun) scheduleJob(row journal.Row, run func(context.Context, int64, string) error) {
	job := func(ctx context.Context) {
		if err := run(ctx, row.ID, row.Command); err != nil && ctx.Err() == nil {
			p.log.Error("carrying out a command", "command", row.Command, "kind", row.Kind, "error", err)
		}
	}
	switch row.Kind {
	case proof.CreateSession.String(), proof.Prompt.String():
		p.sched.queue(row.Exec.SessionID, job)
	default:
		p.sched.once(job)
	}
}

// resume takes up what the journal holds from before: commands that were received, and those that a crash left
// started.
func (p *pairingRun) resume(ctx context.Context) error {
	rows, err := p.journal.Rows(ctx, p.id)
	if err != nil {
		return err
	}
	for _, row := range rows {
		switch row.State {
		case journal.Started:
			p.scheduleJob(row, p.resolve)
		case journal.Received:
			p.schedule(row)
		}
	}
	poke(p.results)
	return nil
}

// execute runs one received command: checked again, started durably, carried out, its end durable before it is sent.
func (p *pairingRun) execute(ctx context.Context, _ int64, command string) error {
	row, err := p.journal.Command(ctx, p.id, command)
	if err != nil || row.State != journal.Received {
		return err
	}
	s, err := p.journal.Surface(ctx, p.id, row.Surface)
	if err != nil {
		return err
	}
	if end, why := p.recheck(row, s); why == recheckEnd {
		return p.finish(row, journal.Received, end, audit.CommandEnded)
	} else if why == recheckWait {
		return p.await(ctx, row, s)
	}
	row, err = p.start(ctx, row, s)
	if err != nil || row.State != journal.Started {
		return err
	}
	return p.perform(ctx, row, s)
}

// recheckResult says what a command may do just before it would start.
type recheckResult int

const (
	recheckGo recheckResult = iota
	recheckWait
	recheckEnd
)

// recheck asks revocation, expiry and policy again: time may have passed since the command was received.
func (p *pairingRun) recheck(row journal.Row, s journal.Surface) (ending, recheckResult) {
	now := p.now()
	switch {
	case p.hasEnded() || !s.Revoked.IsZero():
		return ended(wire.StateFailed, reasonRevoked, "The surface was revoked."), recheckEnd
	case !s.Linked(now):
		return ended(wire.StateFailed, proof.GrantEnded.String(), "The surface's grant has ended; link it again."), recheckEnd
	case now.After(row.Expires):
		return ended(wire.StateExpired, proof.Expired.String(), "It came too late to run."), recheckEnd
	}
	kind, err := proof.ParseKind(row.Kind)
	if err != nil {
		return blocked(pairing.ReasonUnknownKind), recheckEnd
	}
	d := p.policy().Decide(askOf(kind, s, row))
	switch {
	case d.Answer == pairing.Block:
		return blocked(d.Reason), recheckEnd
	case d.Answer == pairing.Confirm && !row.Confirmed:
		return ending{}, recheckWait
	}
	return ending{}, recheckGo
}

// start makes the row started, and with it claims the request of a decision and notes the turn of a prompt, in one
// transaction. The row that is returned is Started, or has ended otherwise.
func (p *pairingRun) start(ctx context.Context, row journal.Row, s journal.Surface) (journal.Row, error) {
	row.Exec.Ref = p.agent.exec.Prepare(row.Kind)
	row.Started = p.now().Truncate(time.Millisecond) // as the journal keeps it
	row.Exec.StartedAt = row.Started
	row.Run = p.journal.Meta().Counter
	changes := []journal.Change{journal.Start(row.ID, row.Exec.Ref, row.Run, row.Started)}
	if !row.Digest.IsZero() {
		changes = append(changes, journal.ClaimRequest(p.id, row.Exec.RequestID, row.Digest, row.Envelope, s.Label))
	}
	if row.Exec.Ref != "" {
		changes = append(changes, journal.BeginTurn(journal.Turn{
			Ref: row.Exec.Ref, Session: row.Exec.SessionID, Pairing: p.id, Envelope: row.Envelope, Started: row.Started,
		}))
	}
	err := p.record([]journal.Line{p.bySurface(audit.CommandStarted, audit.Success, "", s, row)}, changes...)
	if err == nil {
		row.State = journal.Started
		p.fillRequest(ctx, &row)
		return row, nil
	}
	if !errors.Is(err, journal.ErrState) {
		return row, err
	}
	// It was stopped meanwhile, or another decision was faster.
	if end, ok := p.requestFits(ctx, row); !ok {
		err := p.finish(row, journal.Received, end, audit.CommandEnded)
		if err == nil || errors.Is(err, journal.ErrState) {
			return row, nil
		}
		return row, err
	}
	return row, nil
}

// perform calls the executor and keeps what came of it. Interrupted by the end of the agent, it leaves the row started
// for the next start to resolve.
func (p *pairingRun) perform(ctx context.Context, row journal.Row, s journal.Surface) error {
	kind, err := proof.ParseKind(row.Kind)
	if err != nil {
		return err
	}
	do, ok := p.table[kind]
	if !ok {
		return p.finish(row, journal.Started, blocked(pairing.ReasonUnknownKind), audit.CommandEnded)
	}
	result, err := do(ctx, row, s)
	if refused, ok := errors.AsType[*wire.ExecError](err); ok {
		return p.finish(row, journal.Started, p.failedEnding(ctx, row, refused), audit.CommandEnded)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		p.log.Warn("the outcome of a command is not known; asking", "command", row.Command, "error", err)
		return p.resolveRow(ctx, row, s)
	}
	return p.finish(row, journal.Started, p.doneEnding(ctx, row, s, result), audit.CommandEnded)
}

// finish seals how a command ended and keeps it, with what else its end changes. ErrState when it is no longer in
// state from.
func (p *pairingRun) finish(row journal.Row, from string, e ending, kind audit.Type, more ...journal.Change) error {
	ctx, cancel := context.WithTimeout(context.Background(), journalTimeout)
	defer cancel()
	s, err := p.journal.Surface(ctx, p.id, row.Surface)
	if err != nil {
		return err
	}
	if now, err := p.journal.Row(ctx, row.ID); err == nil {
		row.Command = now.Command // a restored broker may have given it another id meanwhile
	}
	result, err := p.sealResult(s, row, e)
	if err != nil {
		return fmt.Errorf("sealing a result: %w", err)
	}
	end := journal.End{Verdict: e.state, Reason: e.body.Code, Result: result, At: p.now()}
	changes := append([]journal.Change{journal.Finish(row.ID, from, end)}, more...)
	if from == journal.Started {
		changes = append(changes, p.afterStart(row, e)...)
	}
	if err := p.record([]journal.Line{p.bySurface(kind, outcomeOf(e.state), e.body.Code, s, row)}, changes...); err != nil {
		return err
	}
	poke(p.results)
	if e.outcome != "" {
		p.pub.CloseRequest(row.Exec.RequestID, e.outcome, s.Label)
	}
	return nil
}

// afterStart is what else the end of a started command changes: a decision closes its request or gives it back, a
// prompt that had no effect has no turn, and a crash that lay between is counted.
func (p *pairingRun) afterStart(row journal.Row, e ending) (changes []journal.Change) {
	switch {
	case e.outcome != "":
		changes = append(changes, journal.Maybe(journal.CloseRequest(p.id, row.Exec.RequestID, e.outcome, "", p.now())))
	case !row.Digest.IsZero() && e.state != wire.StateOutcomeUnknown:
		changes = append(changes, journal.ReleaseRequest(p.id, row.Exec.RequestID, row.Envelope))
	case row.Exec.Ref != "" && e.state != wire.StateCompleted && e.state != wire.StateOutcomeUnknown:
		changes = append(changes, journal.DropTurn(row.Exec.Ref))
	}
	if row.Run < p.journal.Meta().Counter {
		changes = append(changes, journal.CountRecovered())
	}
	return changes
}

func outcomeOf(state string) audit.Outcome {
	switch state {
	case wire.StateCompleted:
		return audit.Success
	case wire.StateOutcomeUnknown:
		return audit.Unknown
	case wire.StateFailed:
		return audit.Failure
	}
	return audit.Refused
}
