package opencode

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// detachedCommand starts the program in a process group of its own. Windows is untested.
func detachedCommand(_, binary string, args []string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
	return cmd
}

func terminate(pid int) { kill(pid) }

func kill(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		p.Kill()
	}
}

// startOf returns when a process was created.
func startOf(pid int) (start string, ok bool) {
	h, err := syscall.OpenProcess(0x1000, false, uint32(pid)) // PROCESS_QUERY_LIMITED_INFORMATION
	if err != nil {
		return "", false
	}
	defer syscall.CloseHandle(h)
	var created, exited, kernel, user syscall.Filetime
	if syscall.GetProcessTimes(h, &created, &exited, &kernel, &user) != nil || exited.HighDateTime != 0 {
		return "", false
	}
	return strconv.FormatInt(created.Nanoseconds(), 10), true
}

func commandOf(int) string { return "" }

func descendants(int, string) []int { return nil }
