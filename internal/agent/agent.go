package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/internal/sqlitedb"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// Config is what a program tells the agent. StateDir, Secrets, Executor and Now are required.
type Config struct {
	StateDir string // 0700; holds journal and control socket
	Secrets  Secrets
	// Executor makes the executor once the journal is open; it gets what the journal knows of earlier turns.
	Executor func(Seed) (Executor, error)
	Machine  string // this machine's id; a journal of another one is locked until its owner acts
	Version  string
	// Dial is the base of every tunnel's configuration: CA, pins, proxy. URL and Header are the agent's.
	Dial   tunnel.DialConfig
	HTTP   *http.Client // for nonces; nil: a plain one
	Logger *slog.Logger // nil discards
	Now    func() time.Time
}

// Seed is what an executor is told of what happened before it.
type Seed struct {
	Turns    []wire.ExecTurn    // whose end the journal does not have
	Requests []wire.ExecRequest // which were open
	Since    time.Time          // when the journal last heard of anything
}

// ErrRunning means that another agent uses the state folder.
var ErrRunning = errors.New("another desktop-agent is running on this state folder")

// JournalName is the journal's file in the state folder.
const JournalName = "journal.db"

// OpenJournal opens the journal of a state folder; ErrRunning when an agent has it.
func OpenJournal(ctx context.Context, stateDir, machine string, now time.Time) (*journal.Journal, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state folder: %w", err)
	}
	j, err := journal.Open(ctx, journal.Options{Path: filepath.Join(stateDir, JournalName), Machine: machine, Now: now})
	if errors.Is(err, sqlitedb.ErrLocked) {
		return nil, ErrRunning
	}
	return j, err
}

// Agent is one desktop's agent: a journal, an executor, and a pairingRun for each pairing.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	journal *journal.Journal
	exec    Executor
	born    time.Time
	dial    func(*pairingRun, context.Context) // keeps a pairing's link up; tests bring links of their own

	list []*pairingRun // of the pairings that have not ended, in the order of their enrolment; fixed after newAgent
}

// New opens the state folder's journal and keys, and makes the agent; ErrRunning when another one has them. It dials
// nothing. The caller must Close what it returns.
func New(ctx context.Context, cfg Config) (*Agent, error) {
	return newAgent(ctx, cfg, realParts(cfg.Secrets))
}

// newAgent opens the journal, checks it against the keystore, and builds a run for each pairing that has not ended.
// It dials nothing. The caller must Close what it returns.
func newAgent(ctx context.Context, cfg Config, make parts) (*Agent, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	j, err := OpenJournal(ctx, cfg.StateDir, cfg.Machine, cfg.Now())
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, log: cfg.Logger, journal: j, born: cfg.Now(), dial: (*pairingRun).dial}
	if err := a.build(ctx, make); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return a, nil
}

func (a *Agent) build(ctx context.Context, make parts) error {
	seed, err := a.seed(ctx)
	if err != nil {
		return err
	}
	if a.exec, err = a.cfg.Executor(seed); err != nil {
		return err
	}
	rows, err := a.journal.Pairings(ctx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if !row.Revoked.IsZero() && row.Told {
			continue
		}
		p, err := newPairingRun(ctx, a, row, make)
		if err != nil {
			return err
		}
		a.list = append(a.list, p)
	}
	return nil
}

// seed asks the journal what the executor should know.
func (a *Agent) seed(ctx context.Context) (s Seed, err error) {
	if s.Turns, err = a.journal.OpenTurns(ctx); err != nil {
		return s, err
	}
	s.Since = a.journal.LastTime()
	s.Requests, err = a.journal.PendingRequests(ctx)
	return s, err
}

// Close releases the journal. Call it after Run has returned, or instead of it. Closing twice is safe.
func (a *Agent) Close() error { return a.journal.Close() }

// Run serves the control socket, runs the executor and keeps every pairing's link up, until ctx ends (nil) or one of
// them fails for good. Call it once.
func (a *Agent) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	start := func(what string, run func(context.Context) error) {
		wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				stop(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	start("control socket", a.serveControl)
	start("executor", func(ctx context.Context) error { return a.exec.Run(ctx, a.event) })
	start("journal", a.watchJournal)
	for _, p := range a.list {
		start("pairing "+p.id.String(), p.run)
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// pruneEvery is how often the journal drops what is over.
const pruneEvery = 24 * time.Hour

// watchJournal ends the agent when its memory fails, and prunes it once a day.
func (a *Agent) watchJournal(ctx context.Context) error {
	ticker := time.NewTicker(pruneEvery)
	defer ticker.Stop()
	for {
		if err := a.journal.Prune(ctx, a.cfg.Now()); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.journal.Failed():
			return sqlitedb.ErrFatal
		case <-ticker.C:
		}
	}
}

// event takes what the executor saw. The journal keeps the ends of turns; every pairing's publisher gets it all.
func (a *Agent) event(e wire.ExecEvent) {
	for _, p := range a.list {
		if p.isRunning() {
			p.pub.Event(e)
		}
	}
	if err := a.noteTurn(e); err != nil {
		a.log.Error("journalling a turn", "type", e.Type, "error", err)
	}
}

// one returns the run of a pairing id, or the only one when the id is empty.
func (a *Agent) one(id string) (*pairingRun, error) {
	if id == "" && len(a.list) == 1 {
		return a.list[0], nil
	}
	if id == "" && len(a.list) > 1 {
		return nil, &ControlError{Code: codeAmbiguous, Message: "this desktop has several pairings; name one"}
	}
	for _, p := range a.list {
		if p.id.String() == id {
			return p, nil
		}
	}
	return nil, &ControlError{Code: wire.CodeNotFound, Message: "this desktop has no such pairing; enrol it first"}
}
