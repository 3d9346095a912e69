//go:build faults

package faults

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// inNamespace marks the test process that runs in a network of its own.
const inNamespace = "ODP_FAULTS_NETNS"

// alone runs the calling test again in a new network namespace, which has nothing but a loopback of its own; it reports
// whether this process is already the one inside.
func alone(t *testing.T) bool {
	t.Helper()
	needs(t, "ip", "nft")
	if os.Getenv(inNamespace) != "" {
		return true
	}
	name := fmt.Sprintf("odp-faults-%d", os.Getpid())
	do(t, "ip", "netns", "add", name)
	undo(t, "ip", "netns", "delete", name)
	do(t, "ip", "-n", name, "link", "set", "lo", "up")
	cmd := exec.CommandContext(t.Context(), "ip", "netns", "exec", name, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"="+name)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in its own network: %v\n%s", err, out)
	}
	return false
}

// TestLoss: with one packet of ten lost in each direction, a fifth of all exchanges, prompts still come through, each once.
func TestLoss(t *testing.T) {
	if !alone(t) {
		return
	}
	w := newLab(t)
	w.start("")
	_, port, err := net.SplitHostPort(w.Addr)
	check(t, err)
	do(t, "nft", "add table inet loss; add chain inet loss in { type filter hook input priority 0; }; "+
		"add rule inet loss in tcp dport "+port+" numgen random mod 100 < 10 counter drop; "+
		"add rule inet loss in tcp sport "+port+" numgen random mod 100 < 10 counter drop")
	before := w.lines("command.started")
	const prompts = 5
	for i := range prompts {
		w.prompt(fmt.Sprintf("through the loss %d", i))
	}
	lost := regexp.MustCompile(`counter packets ([0-9]+)`).FindAllStringSubmatch(do(t, "nft", "list", "table", "inet", "loss"), -1)
	if len(lost) != 2 || lost[0][1] == "0" || lost[1][1] == "0" {
		t.Errorf("nothing was lost: %v", lost)
	}
	if n := w.lines("command.started") - before; n != prompts {
		t.Errorf("%d commands were started for %d prompts", n, prompts)
	}
}

// TestDialsOnlyItsBroker: from enrolment to a prompt, over a link that was cut, the agent connects to its broker and to
// its own control socket, by what the kernel was asked for (product.md, invariant 1).
func TestDialsOnlyItsBroker(t *testing.T) {
	needs(t, "strace")
	w := newLab(t)
	bin := t.TempDir()
	traces := filepath.Join(bin, "traces")
	check(t, os.Mkdir(traces, 0o700))
	for _, name := range []string{"broker", "surface"} {
		check(t, os.Symlink(filepath.Join(w.Bin, name), filepath.Join(bin, name)))
	}
	script := fmt.Sprintf("#!/bin/sh\nexec strace -D -f -qq -o %s/$$ -e trace=connect,sendto,sendmsg,sendmmsg %s \"$@\"\n", traces, filepath.Join(w.Bin, "desktop-agent"))
	check(t, os.WriteFile(filepath.Join(bin, "desktop-agent"), []byte(script), 0o700))
	w.Bin = bin
	w.start("")
	check(t, w.broker.Stop(20*time.Second))
	w.restart("broker")
	w.prompt("over another link")
	check(t, w.agent.Stop(20*time.Second))
	host, port, err := net.SplitHostPort(w.Addr)
	check(t, err)
	ours := fmt.Sprintf(`sin_port=htons(%s), sin_addr=inet_addr("%s")`, port, host)
	dialled := 0
	for _, line := range tracedLines(t, traces) {
		switch {
		case strings.Contains(line, "AF_UNIX") || !strings.Contains(line, "AF_"):
		case strings.Contains(line, ours):
			dialled++
		default:
			t.Errorf("the agent speaks to someone else: %s", line)
		}
	}
	if dialled < 3 { // enrolment, the first link, the second
		t.Errorf("only %d connections to the broker were seen", dialled)
	}
}

func tracedLines(t *testing.T, dir string) (lines []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	check(t, err)
	for _, f := range files {
		raw, err := os.ReadFile(filepath.Join(dir, f.Name()))
		check(t, err)
		lines = append(lines, strings.Split(string(raw), "\n")...)
	}
	return lines
}

// relay is a stretch of network that can be cut or stalled.
type relay struct {
	t    *testing.T
	to   string
	addr string

	mu    sync.Mutex
	cond  *sync.Cond
	bad   string // "", "cut" or "stalled"
	conns map[net.Conn]bool
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	r := &relay{t: t, addr: l.Addr().String(), conns: map[net.Conn]bool{}}
	r.cond = sync.NewCond(&r.mu)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go r.carry(c)
		}
	}()
	t.Cleanup(func() { check(t, l.Close()); r.set("cut") })
	return r
}

// set changes the state of the network; a cut ends what is open.
func (r *relay) set(bad string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bad = bad
	if bad == "cut" {
		for c := range r.conns {
			_ = c.Close()
		}
	}
	r.cond.Broadcast()
}

func (r *relay) carry(c net.Conn) {
	defer func() { _ = c.Close() }()
	r.mu.Lock()
	to, bad := r.to, r.bad
	r.mu.Unlock()
	if bad == "cut" {
		return
	}
	up, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	r.mu.Lock()
	r.conns[c], r.conns[up] = true, true
	r.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { r.pump(up, c) })
	wg.Go(func() { r.pump(c, up) })
	wg.Wait()
	r.mu.Lock()
	delete(r.conns, c)
	delete(r.conns, up)
	r.mu.Unlock()
}

func (r *relay) pump(to, from net.Conn) {
	defer func() { _ = to.Close(); _ = from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		for r.bad == "stalled" {
			r.cond.Wait()
		}
		r.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// TestNetworkAway: after half a minute without a network the tunnel is there again, and what was sent meanwhile runs once.
func TestNetworkAway(t *testing.T) {
	const away, back = 30 * time.Second, 45 * time.Second
	for _, how := range []string{"cut", "stalled"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newLab(t)
			r := newRelay(t)
			r.to = w.Addr
			w.start(r.addr)
			before := w.lines("command.started")
			r.set(how)
			until := time.Now().Add(away)
			if how == "cut" {
				w.await("the agent noticing it", away, func() bool {
					s, err := w.desktop.Status(w.ctx)
					check(t, err)
					return s.Pairings[0].Link.State != "connected"
				})
			}
			<-time.After(time.Until(until)) // the fault itself: half a minute of it
			r.set("")
			began := time.Now()
			w.prompt("after the silence")
			if took := time.Since(began); took > back {
				t.Errorf("the tunnel took %s to come back", took)
			}
			if n := w.lines("command.started") - before; n != 1 {
				t.Errorf("%d commands were started, wanted 1", n)
			}
		})
	}
}
