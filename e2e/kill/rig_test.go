//go:build e2e

// Package kill ends the built programs with SIGKILL at the worst moments, starts them again, and counts what ran: in
// OpenCode's own messages and in the files that its shell wrote, not in what our programs say of themselves.
package kill

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to look into the programs' files

	"cowork.example.com/broker/e2e/lab"
	"cowork.example.com/broker/internal/agent"
	"cowork.example.com/broker/internal/broker"
	"cowork.example.com/broker/internal/mailbox"
	"cowork.example.com/broker/pkg/wire"
)

const (
	// testTime bounds one test on a busy machine.
	testTime = 5 * time.Minute
	look     = 20 * time.Millisecond // between two looks at what is waited for
)

// rig is a broker and a desktop whose programs can be killed one by one.
type rig struct {
	*lab.Lab
	t             *testing.T
	rng           *rand.Rand // of the test's goroutine
	desktop       *lab.Desktop
	control       *agent.Client
	broker, agent *lab.Proc
	journal       *sql.DB
}

// newRig brings everything up; args are those of `desktop-agent run`.
func newRig(ctx context.Context, t *testing.T, prepare func(*lab.Lab) []string) *rig {
	t.Helper()
	t.Logf("seed=%d (set KILL_SEED to choose the same moments)", seed(t))
	l, err := lab.New(filepath.Join("..", "..", "bin"))
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()) })
	r := &rig{Lab: l, t: t, rng: newRand(t, 0)}
	args := prepare(l)
	r.broker, err = l.StartBroker()
	check(t, err)
	r.desktop, err = l.Desktop("desk", args...)
	check(t, err)
	check(t, r.desktop.Enrol(ctx))
	r.agent, err = r.desktop.Start(ctx)
	check(t, err)
	r.control = agent.NewClient(r.desktop.Dir())
	r.journal = peek(t, filepath.Join(r.desktop.Dir(), agent.JournalName))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the broker said:\n%s\nthe agent said:\n%s", last(r.broker.Output()), last(r.agent.Output()))
		}
	})
	return r
}

func last(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}

// seed makes a run repeatable as far as its random choices go.
func seed(t *testing.T) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(os.Getenv("KILL_SEED"), 10, 64)
	if err != nil {
		return uint64(os.Getpid())
	}
	return n
}

func newRand(t *testing.T, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed(t), stream)) }

func upTo(rng *rand.Rand, d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// isolated makes an agent run a real OpenCode on the scripted model.
func isolated(t *testing.T) func(*lab.Lab) []string {
	t.Helper()
	bin := os.Getenv("OPENCODE_BIN")
	if bin == "" {
		t.Fatal("OPENCODE_BIN is not set: use `make test-e2e`")
	}
	return func(l *lab.Lab) []string {
		model, err := l.StartAt(abs(t, filepath.Join("..", "..", "build", "scriptedmodel")), "-addr", "127.0.0.1:0", "-slow", "2s")
		check(t, err)
		url, err := model.Await(`listening on (http://\S+)`, lab.StartTime)
		check(t, err)
		l.Env = append(l.Env, "OPENCODE_CONFIG="+abs(t, filepath.Join("..", "opencode.json")), "SCRIPTED_MODEL_URL="+url[1])
		return []string{"--opencode", "isolated", "--opencode-bin", bin}
	}
}

func abs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	check(t, err)
	return path
}

// killAgent ends the agent as a crash would.
func (r *rig) killAgent() error { return r.agent.Kill() }

// startAgent starts the agent again, and does not wait for it.
func (r *rig) startAgent() (err error) {
	r.agent, err = r.desktop.StartOnly()
	return err
}

// restartBroker ends the broker as a crash would and starts it again on its address.
func (r *rig) restartBroker() (err error) {
	if err := r.broker.Kill(); err != nil {
		return err
	}
	r.broker, err = r.StartBroker()
	return err
}

// ready waits until the agent has its runtime, whatever its link does.
func (r *rig) ready(ctx context.Context) (agent.Status, error) {
	for {
		s, err := r.control.Status(ctx)
		if err == nil && s.Executor.State == wire.RuntimeReady {
			return s, nil
		}
		if err := pause(ctx, look); err != nil {
			return s, err
		}
	}
}

// runtimes are the OpenCode processes of the lab.
func (r *rig) runtimes() (pids []int) {
	for _, p := range r.Strays() {
		if strings.Contains(p.Command, " serve --hostname ") {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// stop ends everything in order and looks that no runtime is left.
func (r *rig) stop() (left int) {
	r.t.Helper()
	check(r.t, r.agent.Stop(30*time.Second))
	check(r.t, r.broker.Stop(30*time.Second))
	return len(r.runtimes())
}

// ended returns how each command ended by the broker's file and by the agent's, by envelope. Both programs are stopped.
func (r *rig) ended(ctx context.Context) (atBroker, atDesktop map[string]string) {
	r.t.Helper()
	store := peek(r.t, filepath.Join(r.BrokerDir(), broker.StoreFile))
	atBroker = ends(ctx, r.t, store, `SELECT lower(hex(digest)), state FROM commands`)
	for envelope, number := range atBroker {
		n, err := strconv.Atoi(number)
		check(r.t, err)
		atBroker[envelope] = mailbox.State(n).String()
	}
	return atBroker, ends(ctx, r.t, r.journal, `SELECT lower(hex(envelope)), verdict FROM inbox WHERE envelope IS NOT NULL`)
}

func ends(ctx context.Context, t *testing.T, db *sql.DB, query string) map[string]string {
	t.Helper()
	rows, err := db.QueryContext(ctx, query)
	check(t, err)
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var envelope, state string
		check(t, rows.Scan(&envelope, &state))
		all[envelope] = state
	}
	check(t, rows.Err())
	return all
}

// peek opens a program's SQLite file for reading, as another process.
func peek(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(5000)&_pragma=query_only(1)")
	check(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { check(t, db.Close()) })
	return db
}

// inFlight counts the commands that the present life of the agent has started and not finished.
func (r *rig) inFlight(ctx context.Context) (n int, err error) {
	err = r.journal.QueryRowContext(ctx, `SELECT count(*) FROM inbox WHERE durable = 0 AND state = 'started'
		AND run = (SELECT counter FROM meta) AND kind IN ('create_session', 'prompt', 'permission.respond')`).Scan(&n)
	return n, err
}

// pause waits, or ends with ctx.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
