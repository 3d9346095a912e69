//go:build e2e

package e2e

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cowork.example.com/broker/e2e/lab"
	"cowork.example.com/broker/pkg/wire"
)

// TestMainRoad sends real work to a real OpenCode: text, an approval, a denial, a question, an abort, a session gone on
// with, history; and looks at what listens while a prompt runs (product.md, invariant 1).
func TestMainRoad(t *testing.T) {
	ctx, l := newLab(t, "bin")
	w := start(ctx, t, l, withModel(t, l)...)
	phone := w.link(ctx, t, "phone", true)

	first := prompt(ctx, t, phone, "say: hello over the road")
	if first.State != wire.StateCompleted || first.Outcome != "done" || first.Text != "hello over the road" {
		t.Fatalf("%+v", first)
	}

	t.Run("approval", func(t *testing.T) { approval(ctx, t, phone, first.Session) })
	t.Run("denial", func(t *testing.T) { denial(ctx, t, phone, first.Session) })
	t.Run("question", func(t *testing.T) { question(ctx, t, phone, first.Session) })
	t.Run("abort and sockets", func(t *testing.T) { abortWhileLooking(ctx, t, w, phone, first.Session) })
	t.Run("history", func(t *testing.T) { history(ctx, t, phone, first.Session) })
	t.Run("audit", func(t *testing.T) { auditIsWhole(ctx, t, w) })
}

func approval(ctx context.Context, t *testing.T, phone *lab.Surface, session string) {
	p, err := phone.Start("prompt", "--session", session, "run: echo $((6*7)) > made-by-approval; cat made-by-approval")
	check(t, err)
	r := request(ctx, t, phone)
	if r.Full == nil || r.Full.Command != "echo $((6*7)) > made-by-approval; cat made-by-approval" || r.Full.Project != "app" {
		t.Fatalf("the request shows %+v", r.Full)
	}
	must(ctx, t, phone, "approve", r.ID)
	if code := p.Code(); code != 0 || !strings.Contains(p.Output(), "42") {
		t.Fatalf("exit %d:\n%s", code, p.Output())
	}
	again := run(ctx, t, phone, "approve", r.ID)
	if again.Code != 4 {
		t.Errorf("a request that is gone was answered: exit %d, %s", again.Code, again.Stderr)
	}
}

func denial(ctx context.Context, t *testing.T, phone *lab.Surface, session string) {
	p, err := phone.Start("prompt", "--session", session, "run: touch must-not-exist")
	check(t, err)
	r := request(ctx, t, phone)
	must(ctx, t, phone, "deny", r.ID)
	p.Code()
	found, err := filepath.Glob(filepath.Join(os.TempDir(), "lab*", "desk-app", "must-not-exist"))
	if err != nil || len(found) > 0 {
		t.Errorf("a denied command ran: %v %v", found, err)
	}
}

func question(ctx context.Context, t *testing.T, phone *lab.Surface, session string) {
	p, err := phone.Start("prompt", "--session", session, "ask: Which colour?")
	check(t, err)
	r := request(ctx, t, phone)
	if r.Kind != wire.RequestQuestion || r.Full == nil || len(r.Full.Questions) != 1 || r.Full.Questions[0].Question != "Which colour?" {
		t.Fatalf("the request shows %+v", r.Full)
	}
	must(ctx, t, phone, "answer", r.ID, "Yes")
	if code := p.Code(); code != 0 || !strings.Contains(p.Output(), "Yes") {
		t.Fatalf("exit %d:\n%s", code, p.Output())
	}
}

func abortWhileLooking(ctx context.Context, t *testing.T, w *world, phone *lab.Surface, session string) {
	p, err := phone.Start("prompt", "--session", session, "slow: 40")
	check(t, err)
	for !strings.Contains(p.Output(), "chunk") {
		pause(ctx, t)
	}
	listensLocally(ctx, t, w)
	must(ctx, t, phone, "abort", session)
	if code := p.Code(); code == 0 || !strings.Contains(p.Output(), "aborted") {
		t.Fatalf("exit %d:\n%s", code, p.Output())
	}
}

func history(ctx context.Context, t *testing.T, phone *lab.Surface, session string) {
	var page wire.ResultBody
	check(t, phone.JSON(ctx, &page, "history", session))
	text := fmt.Sprintf("%+v", page.Messages)
	if len(page.Messages) < 8 || !strings.Contains(text, "hello over the road") {
		t.Errorf("%d messages: %.400s", len(page.Messages), text)
	}
	if strings.Contains(text, os.TempDir()+"/lab") {
		t.Errorf("the transcript shows a local path: %s", text)
	}
}

// auditIsWhole reads both logs: numbers without a gap, and each command's road from the surface to its end.
func auditIsWhole(ctx context.Context, t *testing.T, w *world) {
	desk, err := w.desktop.Must(ctx, "audit", "tail", "--json", "--limit", "1000")
	check(t, err)
	broker, err := w.Must(ctx, "", "broker", "--state", w.BrokerDir(), "audit", "tail", "--json")
	check(t, err)
	for name, log := range map[string]string{"desktop": desk, "broker": broker} {
		lines := strings.Split(strings.TrimSpace(log), "\n")
		for i, line := range lines {
			if !strings.HasPrefix(line, fmt.Sprintf(`{"v":1,"seq":%d,`, i+1)) {
				t.Fatalf("%s: line %d is %s", name, i+1, line)
			}
		}
		for _, secret := range []string{"hello over the road", "made-by-approval", "Which colour", "phone", os.TempDir()} {
			if strings.Contains(log, secret) {
				t.Errorf("the log of the %s says %q", name, secret)
			}
		}
	}
	for _, want := range []string{"surface.linked", "command.received", "command.started", "command.ended", "request.opened", "turn.ended"} {
		if !strings.Contains(desk, `"type":"`+want+`"`) {
			t.Errorf("the desktop's log has no %s", want)
		}
	}
	for _, decision := range []string{"allow", "deny", "answer"} {
		if !strings.Contains(desk, `"decision":"`+decision+`"`) {
			t.Errorf("the desktop's log has no decision %s", decision)
		}
	}
	for _, want := range []string{"code.issued", "pairing.enrolled", "link.done", "command.queued", "command.leased", "command.ended"} {
		if !strings.Contains(broker, `"type":"`+want+`"`) {
			t.Errorf("the broker's log has no %s", want)
		}
	}
}

// listensLocally reads /proc: nobody of the agent's tree listens where another machine could reach it, and on loopback
// only where status says.
func listensLocally(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	status, err := w.desktop.Status(ctx)
	check(t, err)
	inodes := map[string]int{}
	tree := processTree(t, w.agent.PID())
	for _, pid := range tree {
		for _, inode := range socketsOf(pid) {
			inodes[inode] = pid
		}
	}
	listening := 0
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		for _, s := range listeners(t, w.agent.PID(), table) {
			pid, ours := inodes[s.inode]
			if !ours {
				continue
			}
			listening++
			if !s.at.Addr().IsLoopback() {
				t.Errorf("process %d listens on %s (%s)", pid, s.at, table)
			}
			if !slices.Contains(status.Listens, "http://"+s.at.String()) {
				t.Errorf("process %d listens on %s, which status does not name: %v", pid, s.at, status.Listens)
			}
		}
	}
	if len(tree) < 2 || listening == 0 {
		t.Errorf("%d processes with %d listeners were looked at; OpenCode is missing", len(tree), listening)
	}
}

func processTree(t *testing.T, root int) []int {
	t.Helper()
	parents := map[int]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	check(t, err)
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || err != nil {
			continue // it has ended
		}
		after := string(raw[strings.LastIndexByte(string(raw), ')')+2:])
		ppid, err := strconv.Atoi(strings.Fields(after)[1])
		check(t, err)
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		check(t, err)
		parents[pid] = ppid
	}
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		for pid, ppid := range parents {
			if ppid == tree[i] && !slices.Contains(tree, pid) {
				tree = append(tree, pid)
			}
		}
	}
	return tree
}

func socketsOf(pid int) (inodes []string) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		to, err := os.Readlink(link)
		if inode, ok := strings.CutPrefix(to, "socket:["); err == nil && ok {
			inodes = append(inodes, strings.TrimSuffix(inode, "]"))
		}
	}
	return inodes
}

type listener struct {
	at    netip.AddrPort
	inode string
}

// listeners parses /proc/PID/net: TCP sockets that listen, UDP sockets that are bound and not connected.
func listeners(t *testing.T, pid int, table string) (all []listener) {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
	check(t, err)
	state := "0A"
	if strings.HasPrefix(table, "udp") {
		state = "07"
	}
	for _, line := range strings.Split(string(raw), "\n")[1:] {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != state {
			continue
		}
		all = append(all, listener{at: address(t, f[1]), inode: f[9]})
	}
	return all
}

// address reads the kernel's form: 32-bit words in host order, then the port.
func address(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	check(t, err)
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	addr, _ := netip.AddrFromSlice(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	check(t, err)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n))
}
