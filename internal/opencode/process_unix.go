//go:build unix

package opencode

import (
	"os/exec"
	"syscall"
)

// detachedCommand runs the program through a shell that writes its own process id down
// and then becomes the program.
func detachedCommand(pidPath, binary string, args []string) *exec.Cmd {
	script := `umask 077; echo $$ >"$0" && exec "$@"`
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, pidPath, binary}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// terminate asks a process and its group to end; kill does not ask.
func terminate(pid int) { signal(pid, syscall.SIGTERM) }
func kill(pid int)      { signal(pid, syscall.SIGKILL) }

// signal goes to the group when the process leads one, else to the process alone. That it
// may be gone by now is no error.
func signal(pid int, sig syscall.Signal) {
	if pid <= 1 {
		return
	}
	if group, err := syscall.Getpgid(pid); err == nil && group == pid {
		_ = syscall.Kill(-pid, sig)
		return
	}
	_ = syscall.Kill(pid, sig)
}
