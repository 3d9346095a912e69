package opencode

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	maxRunFile = 16 << 10
	maxLogTail = 64 << 10
)

// markerName is the variable by which everything that descends from one runtime is
// recognised; its value is random and no secret.
const markerName = "COWORK_RUNTIME"

// process is one OpenCode that we started, now or in an earlier life. Its exported
// fields stand in the run file.
type process struct {
	PID int `json:"pid"`
	// Start tells this process from a later one with the same id.
	Start    string    `json:"start"`
	Started  time.Time `json:"started"`
	Mode     string    `json:"mode"`
	Port     int       `json:"port"`
	Password secret    `json:"password"`
	Marker   string    `json:"marker"`

	done    chan struct{} // closes when our own child was reaped; nil for an adopted one
	pidFile string
}

// base is the address it listens on.
func (p *process) base() string { return "http://127.0.0.1:" + strconv.Itoa(p.Port) }

// own takes a command that was just started.
func (p *process) own(cmd *exec.Cmd) {
	p.PID = cmd.Process.Pid
	p.Start, _ = startOf(p.PID)
	p.done = make(chan struct{})
	go func() {
		_ = cmd.Wait() // it reaps; how it ended does not matter
		close(p.done)
	}()
}

// alive says whether this very process still runs.
func (p *process) alive() bool {
	select {
	case <-p.done: // never for an adopted one: its channel is nil
		return false
	default:
	}
	start, ok := startOf(p.PID)
	return ok && start == p.Start
}

// identify completes what a crash between start and run file left open, and says whether
// the process still runs. A process id without a start time counts only if its command
// line names our port.
func (p *process) identify() bool {
	if p.PID != 0 {
		return p.alive()
	}
	b, err := os.ReadFile(p.pidFile)
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 || !strings.Contains(commandOf(pid), fmt.Sprintf("--port %d", p.Port)) {
		return false
	}
	p.PID = pid
	var ok bool
	p.Start, ok = startOf(pid)
	return ok
}

// wait returns when the process or ctx ends; ended says which.
func (p *process) wait(ctx context.Context) (ended bool) {
	for {
		t := time.NewTimer(aliveEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-p.done:
			t.Stop()
			return true
		case <-t.C:
			if !p.alive() {
				return true
			}
		}
	}
}

// end ends the process and everything that descends from it, politely first. It never
// touches a process that is not this one.
func (p *process) end() {
	kin := p.family()
	if p.alive() {
		terminate(p.PID)
		grace, cancel := context.WithTimeout(context.Background(), stopGrace)
		if !p.wait(grace) {
			kill(p.PID)
		}
		cancel()
	}
	for _, k := range kin {
		if start, ok := startOf(k.pid); ok && start == k.start {
			kill(k.pid)
		}
	}
	p.sweep()
	// Death by signal takes a moment; who comes next must not find them.
	for range stopGrace / (10 * time.Millisecond) {
		if !p.alive() && len(p.family()) == 0 {
			return
		}
		pause(context.Background(), nil, 10*time.Millisecond)
	}
}

// sweep ends what descends from a runtime that is gone: its shells are in sessions of
// their own and outlive it.
func (p *process) sweep() {
	for _, k := range p.family() {
		if k.pid != p.PID {
			kill(k.pid)
		}
	}
}

// relative is a process that descends from the runtime.
type relative struct {
	pid   int
	start string
}

// family lists the living descendants.
func (p *process) family() []relative {
	var list []relative
	for _, pid := range descendants(p.PID, markerName+"="+p.Marker) {
		if start, ok := startOf(pid); ok && pid != os.Getpid() && pid != p.PID {
			list = append(list, relative{pid, start})
		}
	}
	return list
}

// runFile is where a runtime is written down for the next agent, readable by the user
// only.
type runFile struct{ path string }

func (f runFile) pidPath() string { return f.path + ".pid" }

// read returns nil when there is none.
func (f runFile) read() (*process, error) {
	in, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer in.Close()
	b, err := readAll(in, maxRunFile)
	if err != nil {
		return nil, err
	}
	p := &process{pidFile: f.pidPath()}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, errors.New("opencode: the run file is malformed")
	}
	if p.Port <= 0 || p.Port > 65535 || p.Marker == "" || p.PID < 0 {
		return nil, errors.New("opencode: the run file is incomplete")
	}
	return p, nil
}

// write replaces the file as a whole.
func (f runFile) write(p *process) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(f.path), "opencode.run-*") // 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), f.path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // the first error counts
	}
	return err
}

func (f runFile) remove() error {
	_ = os.Remove(f.pidPath()) // without the run file it means nothing
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// freePort picks a port that nobody on this machine listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// said says whether a line of the log contains the text.
func said(path, text string) bool {
	for _, line := range logLines(path) {
		if strings.Contains(line, text) {
			return true
		}
	}
	return false
}

// lastLine is the end of what the runtime said.
func lastLine(path string) string {
	lines := logLines(path)
	if len(lines) == 0 {
		return "nothing"
	}
	return lines[len(lines)-1]
}

// logLines reads the non-empty lines of the log's beginning.
func logLines(path string) (lines []string) {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, maxLogTail)
	n, _ := f.Read(b)
	in := bufio.NewScanner(bytes.NewReader(b[:n]))
	for in.Scan() {
		if line := strings.TrimSpace(in.Text()); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
