package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what the figures of one bench depend on beside the code.
type machine struct {
	p50, p99 float64 // ms of one append and fsync
	load     string
}

func (m machine) String() string {
	return fmt.Sprintf("%s; %d CPUs, %s %s/%s; load %s; fsync here p50 %s ms, p99 %s ms",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, m.load,
		number(m.p50), number(m.p99))
}

// fsyncs is how many appends lookAround times.
const fsyncs = 300

// lookAround times this disk and reads the load.
func lookAround() (machine, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return machine{}, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // scratch
	l, err := openLog(filepath.Join(dir, "log"))
	if err != nil {
		return machine{}, err
	}
	defer l.Close() //nolint:errcheck // scratch
	var all []time.Duration
	for range fsyncs {
		began := time.Now()
		if err := l.append(make([]byte, 600)); err != nil {
			return machine{}, err
		}
		all = append(all, time.Since(began))
	}
	s := ms(all)
	return machine{p50: at(s, 0.5), p99: at(s, 0.99), load: load()}, nil
}

// log is the barest durable thing: a file to which each append is synced.
type log struct{ *os.File }

func openLog(path string) (log, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return log{f}, err
}

func (l log) append(b []byte) error {
	if _, err := l.Write(b); err != nil {
		return err
	}
	return l.Sync()
}

// load is the machine's load averages over 1, 5 and 15 minutes.
func load() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(raw))[:3], " ")
}

// rss is the memory that a process holds, in KiB.
func rss(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			return strconv.ParseFloat(f[1], 64)
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}

// ticks is the unit of the times in /proc/PID/stat.
const ticks = 10 * time.Millisecond

// cpu is the processor time that a process has used.
func cpu(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	user, err := strconv.Atoi(f[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(f[12])
	return time.Duration(user+system) * ticks, err
}

// ownCPU is the processor time of this process.
func ownCPU() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // it cannot fail for oneself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// needFiles fails when this process, or one that it starts, may not open so many files.
func needFiles(n int) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if l.Max < uint64(n) {
		return fmt.Errorf("%d open files are needed and %d are allowed: raise `ulimit -Hn`", n, l.Max)
	}
	l.Cur = l.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
}

// buildBroker builds the real broker as scripts/build.sh does, into a scratch folder.
func buildBroker(ctx context.Context) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "cowork.example.com/broker").Output()
	if err != nil {
		return "", fmt.Errorf("finding the project (run it as `go -C bench run .`): %w", err)
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/", "./cmd/broker")
	build.Dir, build.Env = strings.TrimSpace(string(root)), append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	return dir, build.Run()
}
