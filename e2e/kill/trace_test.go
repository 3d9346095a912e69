//go:build e2e

package kill

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"cowork.example.com/broker/e2e/lab"
)

// trace is strace on a running program.
type trace struct {
	t    *testing.T
	cmd  *exec.Cmd
	file string
}

// attach begins to follow every thread of a program, and returns when it does.
func attach(t *testing.T, r *rig, p *lab.Proc) *trace {
	t.Helper()
	tr := &trace{t: t, file: filepath.Join(r.Dir, p.Name+".trace")}
	tr.cmd = exec.Command("strace", "-f", "-y", "-xx", "-s", "70000", "-o", tr.file,
		"-e", "trace=fsync,fdatasync,read,write,writev,sendto,sendmsg,recvfrom,recvmsg", "-p", strconv.Itoa(p.PID()))
	said, err := tr.cmd.StderrPipe()
	check(t, err)
	check(t, tr.cmd.Start())
	lines := bufio.NewScanner(said)
	attached := false
	for !attached && lines.Scan() {
		t.Log(lines.Text())
		attached = strings.Contains(lines.Text(), " attached")
	}
	if !attached {
		t.Fatal("strace cannot follow the program: run as root, or set kernel.yama.ptrace_scope to 0")
	}
	go func() { // or strace would wait for a reader
		for lines.Scan() {
		}
	}()
	t.Cleanup(func() { _ = tr.cmd.Process.Kill() }) // when stop was not reached
	return tr
}

// stop lets the program go on alone, and returns what it did, in order.
func (tr *trace) stop() []call {
	tr.t.Helper()
	check(tr.t, tr.cmd.Process.Signal(syscall.SIGINT))
	_ = tr.cmd.Wait() // it ends by the signal
	raw, err := os.ReadFile(tr.file)
	check(tr.t, err)
	return parseCalls(string(raw))
}

// call is one system call that succeeded. What a write carries left when it was entered, what a read brought is there
// when it has returned.
type call struct {
	name         string
	fd           string // number and what it stands for
	data         []byte // of a read or write
	enter, leave int    // lines of the trace
}

var (
	whole   = regexp.MustCompile(`^(\d+) +(\w+)\((\d+<[^>]*>)(.*)\) += (-?\d+)`)
	begun   = regexp.MustCompile(`^(\d+) +(\w+)\((\d+<[^>]*>)(.*)<unfinished \.\.\.>`)
	resumed = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)`)
	quoted  = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)
)

// parseCalls reads strace's output. A call that another thread interrupted stands on two lines.
func parseCalls(text string) (calls []call) {
	open := map[string]call{} // by thread
	args := map[string]string{}
	for i, line := range strings.Split(text, "\n") {
		if m := begun.FindStringSubmatch(line); m != nil {
			open[m[1]], args[m[1]] = call{name: m[2], fd: unhex(m[3]), enter: i}, m[4]
		} else if m := resumed.FindStringSubmatch(line); m != nil {
			c, ok := open[m[1]]
			delete(open, m[1])
			if ok && c.name == m[2] {
				calls = addCall(calls, c, i, args[m[1]]+m[3], m[4])
			}
		} else if m := whole.FindStringSubmatch(line); m != nil {
			calls = addCall(calls, call{name: m[2], fd: unhex(m[3]), enter: i}, i, m[4], m[5])
		}
	}
	slices.SortStableFunc(calls, func(a, b call) int { return a.enter - b.enter })
	return calls
}

func addCall(calls []call, c call, leave int, args, result string) []call {
	n, err := strconv.Atoi(result)
	if err != nil || n < 0 || strings.Contains(args, "MSG_PEEK") { // a look at what the next call reads
		return calls
	}
	c.leave = leave
	if m := quoted.FindStringSubmatch(args); m != nil {
		c.data = []byte(unhex(m[1]))
		c.data = c.data[:min(n, len(c.data))]
	}
	return append(calls, c)
}

var hexByte = regexp.MustCompile(`\\x[0-9a-f]{2}`)

func unhex(s string) string {
	return hexByte.ReplaceAllStringFunc(s, func(h string) string {
		n, err := strconv.ParseUint(h[2:], 16, 8)
		if err != nil {
			return h
		}
		return string([]byte{byte(n)})
	})
}

func (c call) sync() bool { return c.name == "fsync" || c.name == "fdatasync" }
func (c call) sends() bool {
	return strings.HasPrefix(c.name, "write") || strings.HasPrefix(c.name, "send")
}

func (c call) socket() bool {
	return strings.Contains(c.fd, "<socket:") || strings.Contains(c.fd, "<TCP")
}

// syncs returns the syncs of a file's write-ahead log that began after one line and had returned before another.
func syncs(calls []call, wal string, after, before int) (n int) {
	for _, c := range calls {
		if c.sync() && strings.HasSuffix(c.fd, "/"+wal+">") && c.enter > after && c.leave < before {
			n++
		}
	}
	return n
}

// flow is what went over one socket in one direction: bytes, and the line of the trace at which each was there.
type flow struct {
	bytes []byte
	line  []int
}

func (f *flow) add(c call) {
	line := c.leave
	if c.sends() {
		line = c.enter
	}
	f.bytes = append(f.bytes, c.data...)
	for range c.data {
		f.line = append(f.line, line)
	}
}

// flows sorts a trace by socket.
func flows(calls []call) (in, out map[string]*flow) {
	in, out = map[string]*flow{}, map[string]*flow{}
	for _, c := range calls {
		if !c.socket() || len(c.data) == 0 {
			continue
		}
		way := in
		if c.sends() {
			way = out
		}
		if way[c.fd] == nil {
			way[c.fd] = &flow{}
		}
		way[c.fd].add(c)
	}
	return in, out
}

// unframed is the payload of a WebSocket's frames, unmasked. A trace begins between two frames: the link is at rest.
func (f *flow) unframed() *flow {
	plain := &flow{}
	for at := 0; at+2 <= len(f.bytes); {
		size, head := int(f.bytes[at+1]&0x7f), 2
		switch size {
		case 126:
			head = 4
		case 127:
			head = 10
		}
		masked := f.bytes[at+1]&0x80 != 0
		if at+head+4 > len(f.bytes) {
			break
		}
		switch size {
		case 126:
			size = int(binary.BigEndian.Uint16(f.bytes[at+2:]))
		case 127:
			size = int(binary.BigEndian.Uint64(f.bytes[at+2:]))
		}
		var mask [4]byte
		if masked {
			copy(mask[:], f.bytes[at+head:])
			head += 4
		}
		end := min(at+head+size, len(f.bytes))
		for i := at + head; i < end; i++ {
			plain.bytes = append(plain.bytes, f.bytes[i]^mask[(i-at-head)%4])
			plain.line = append(plain.line, f.line[i])
		}
		at = end
	}
	return plain
}

// Sizes and kinds of the tunnel's frames (pkg/tunnel/SPEC.md section 4).
const (
	tunnelHeader = 20
	tunnelReply  = 2
)

// request is one request on the tunnel.
type request struct {
	kind  string // wire's frame type
	class byte
	id    []byte
	first int // line of its first byte
	line  int // and of its last
}

// requests finds the requests with the types named.
func (f *flow) requests(t *testing.T, types ...string) (all []request) {
	t.Helper()
	for _, kind := range types {
		start := []byte(`{"type":"` + kind + `"`)
		for from := 0; ; {
			i := bytes.Index(f.bytes[from:], start)
			if i < 0 {
				break
			}
			i += from
			from = i + len(start)
			if i < tunnelHeader {
				t.Fatalf("a frame %s has no header", kind)
			}
			head := f.bytes[i-tunnelHeader : i]
			end := i + int(binary.BigEndian.Uint32(head[4:8]))
			if end > len(f.bytes) {
				t.Fatalf("a frame %s is not whole in the trace", kind)
			}
			all = append(all, request{kind: kind, class: head[1], id: bytes.Clone(head[8:16]), first: f.line[i-tunnelHeader], line: f.line[end-1]})
		}
	}
	return all
}

// reply is the line at which the reply to a request left, and its body.
func (f *flow) reply(t *testing.T, q request) (line int, body string) {
	t.Helper()
	for i := 0; i+tunnelHeader <= len(f.bytes); i++ {
		head := f.bytes[i : i+tunnelHeader]
		if head[0] != 1 || head[1] != q.class || head[2] != tunnelReply || head[3] != 0 || !bytes.Equal(head[8:16], q.id) {
			continue
		}
		size := int(binary.BigEndian.Uint32(head[4:8]))
		return f.line[i], string(f.bytes[i+tunnelHeader : min(i+tunnelHeader+size, len(f.bytes))])
	}
	t.Fatalf("no reply to %s %x is in the trace", q.kind, q.id)
	return 0, ""
}

// at is the line of the first byte of a text after another line.
func (f *flow) at(text string, after int) (line int, ok bool) {
	for from := 0; ; {
		i := bytes.Index(f.bytes[from:], []byte(text))
		if i < 0 {
			return 0, false
		}
		if f.line[from+i] > after {
			return f.line[from+i], true
		}
		from += i + 1
	}
}

// carrying is the tunnel: of all sockets the one with the frames of the type named.
func carrying(t *testing.T, all map[string]*flow, kind string) (string, *flow) {
	t.Helper()
	for fd, f := range all {
		if p := f.unframed(); bytes.Contains(p.bytes, []byte(`{"type":"`+kind+`"`)) {
			return fd, p
		}
	}
	t.Fatalf("no socket carries a frame %s", kind)
	return "", nil
}
