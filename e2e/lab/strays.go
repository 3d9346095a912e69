//go:build unix

package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// Process is a living process as /proc shows it.
type Process struct {
	PID     int
	Command string // its arguments, a space between
}

// Strays lists the living processes that belong to this lab, whoever started them: their environment names its folder.
// An OpenCode outlives an agent that is killed, and what runs below it outlives both. It knows nothing but Linux.
func (l *Lab) Strays() (all []Process) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil || !bytes.Contains(env, []byte(l.Dir+"/")) {
			continue
		}
		args, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(args) == 0 { // it has just ended
			continue
		}
		all = append(all, Process{PID: pid, Command: string(bytes.TrimSpace(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))})
	}
	return all
}

// endStrays ends what is left of the lab after its programs were stopped: a killed agent leaves its OpenCode.
func (l *Lab) endStrays() {
	for _, s := range l.Strays() {
		if p, err := os.FindProcess(s.PID); err == nil {
			_ = p.Kill() // it may have ended by itself
		}
	}
}
