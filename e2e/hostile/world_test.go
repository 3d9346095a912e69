//go:build e2e

package hostile

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cowork.example.com/broker/e2e/lab"
	"cowork.example.com/broker/internal/keystore"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/surface"
	"cowork.example.com/broker/pkg/wire"
)

// testTime bounds one test on a busy machine.
const testTime = 3 * time.Minute

// world is a desktop and its surfaces, which know only the liar's address, and the broker that he owns.
type world struct {
	*lab.Lab
	t       *testing.T
	ctx     context.Context
	liar    *liar
	desktop *lab.Desktop
	broker  *lab.Proc
	agent   *lab.Proc
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newWorld starts everything with the programs of a folder; what runs as the desktop's executor is in args.
func newWorld(t *testing.T, programs string, args ...string) *world {
	t.Helper()
	w := newBroker(t, programs)
	w.desktop, w.agent = w.newDesktop("desk", args...)
	return w
}

// newBroker starts the liar and his broker, which believes that it stands at the liar's address.
func newBroker(t *testing.T, programs string, flags ...string) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	l, err := lab.New(filepath.Join("..", "..", programs))
	check(t, err)
	w := &world{Lab: l, t: t, ctx: ctx}
	t.Cleanup(func() { check(t, l.Close()) })
	front := freeAddr(t)
	w.broker, err = l.StartBroker(append(flags, "--page-origin", "http://"+front)...)
	check(t, err)
	w.liar, err = newLiar(front, l.Addr)
	check(t, err)
	t.Cleanup(func() { check(t, w.liar.close()) })
	l.Addr = front // whoever asks for the broker finds the liar
	return w
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer func() { check(t, l.Close()) }()
	return l.Addr().String()
}

// echo are the arguments of an agent that answers each prompt with itself, and counts them in its sessions.
var echo = []string{"--executor", "echo"}

// newDesktop enrols and starts a desktop.
func (w *world) newDesktop(name string, args ...string) (*lab.Desktop, *lab.Proc) {
	w.t.Helper()
	d, err := w.Desktop(name, args...)
	check(w.t, err)
	check(w.t, d.Enrol(w.ctx))
	p, err := d.Start(w.ctx)
	check(w.t, err)
	return d, p
}

// link links a surface by the programs and returns it opened by the library, with its keys.
func (w *world) link(name string, decide bool) *phone {
	w.t.Helper()
	s := w.Surface(name)
	check(w.t, s.Link(w.ctx, w.desktop, decide))
	return w.open(s)
}

// phone is a real surface: its folder serves the program and, here, the library that the program is made of.
type phone struct {
	*surface.Surface
	cli     *lab.Surface
	info    surface.Info
	keys    *seal.Surface
	pairing proof.PairingID
	session string
}

func (w *world) options(s *lab.Surface) surface.Options {
	w.t.Helper()
	store, err := keystore.Open(keystore.File, "surface", filepath.Join(s.Dir(), "keys"))
	check(w.t, err)
	return surface.Options{Dir: s.Dir(), Secrets: keystore.Bytes{Store: store}}
}

func (w *world) open(s *lab.Surface) *phone {
	w.t.Helper()
	o := w.options(s)
	all, err := surface.List(o.Dir)
	check(w.t, err)
	if len(all) != 1 {
		w.t.Fatalf("%s is linked to %d desktops", s.Name, len(all))
	}
	p := &phone{cli: s, info: all[0]}
	p.Surface, err = surface.Open(w.ctx, o, p.info.Pairing)
	check(w.t, err)
	p.pairing, err = proof.ParsePairingID(p.info.Pairing)
	check(w.t, err)
	raw, ok, err := o.Secrets.Get(w.ctx, "surface-"+hexOf(p.pairing[:]))
	check(w.t, err)
	if !ok {
		w.t.Fatal("the surface's keys are not where they were")
	}
	p.keys, err = seal.LoadSurface(raw)
	check(w.t, err)
	return p
}

// again opens the surface as its next process would: it has forgotten tokens and epochs.
func (w *world) again(p *phone) *phone {
	w.t.Helper()
	next := w.open(p.cli)
	next.session = p.session
	return next
}

// begin makes the session in which prompts are counted.
func (w *world) begin(p *phone) {
	w.t.Helper()
	o, err := p.Do(w.ctx, proof.CreateSession, wire.CreateSession{Project: "app"}, nil)
	check(w.t, err)
	if o.Body.Session == nil {
		w.t.Fatalf("no session: %+v", o)
	}
	p.session = o.Body.Session.ID
}

// say sends a prompt that has to run.
func (w *world) say(p *phone, text string) surface.Outcome {
	w.t.Helper()
	o, err := p.Do(w.ctx, proof.Prompt, wire.Prompt{SessionID: p.session, Text: text}, nil)
	check(w.t, err)
	if !o.Signed || o.State() != wire.StateCompleted {
		w.t.Fatalf("%q: %+v", text, o)
	}
	return o
}

// ran counts what was executed, by the line that is durable before anything runs, and by the executor's own memory.
func (w *world) ran(p *phone) int {
	w.t.Helper()
	started := 0
	for _, line := range w.audit() {
		if line.Type == "command.started" && line.Command != nil && line.Command.Kind == "prompt" {
			started++
		}
	}
	o, err := p.Do(w.ctx, proof.History, wire.History{SessionID: p.session, Limit: 100}, nil)
	check(w.t, err)
	asked := 0
	for _, m := range o.Body.Messages {
		if m.Role == "user" {
			asked++
		}
	}
	if asked != started {
		w.t.Errorf("the log says that %d prompts were started, the executor remembers %d", started, asked)
	}
	return started
}

// audit reads the desktop's own log.
func (w *world) audit() []wire.AuditLine {
	w.t.Helper()
	return w.auditOf(w.desktop)
}

func (w *world) auditOf(d *lab.Desktop) []wire.AuditLine {
	w.t.Helper()
	out, err := d.Must(w.ctx, "audit", "tail", "--json", "--limit", "1000")
	check(w.t, err)
	return parseLines(w.t, out)
}

func parseLines(t *testing.T, text string) (lines []wire.AuditLine) {
	t.Helper()
	sc := bufio.NewScanner(strings.NewReader(text))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var line wire.AuditLine
		check(t, json.Unmarshal(sc.Bytes(), &line))
		lines = append(lines, line)
	}
	check(t, sc.Err())
	return lines
}

// await waits until something shows; it never passes by time alone.
func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) || w.ctx.Err() != nil {
			w.t.Fatalf("did not come: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// problemCode is the code of the broker's or the tunnel's refusal in err.
func problemCode(err error) string {
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		return p.Code
	}
	return ""
}

// withOpenCode starts the scripted model and returns the arguments with which an agent runs a real OpenCode on it.
func (w *world) withOpenCode() []string {
	w.t.Helper()
	bin := os.Getenv("OPENCODE_BIN")
	if bin == "" {
		w.t.Fatal("OPENCODE_BIN is not set: use `make test-e2e`")
	}
	server, err := w.StartAt(abs(w.t, "../../build/scriptedmodel"), "-addr", "127.0.0.1:0", "-slow", "20s")
	check(w.t, err)
	url, err := server.Await(`listening on (http://\S+)`, lab.StartTime)
	check(w.t, err)
	w.Env = append(w.Env, "OPENCODE_CONFIG="+abs(w.t, "../opencode.json"), "SCRIPTED_MODEL_URL="+url[1])
	return []string{"--opencode", "isolated", "--opencode-bin", bin}
}

func abs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	check(t, err)
	return path
}
