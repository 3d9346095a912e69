//go:build unix

// Command demo starts broker, agent and OpenCode on this machine from the built programs. `demo` drives the whole main
// job through them and exits; `demo run` leaves them running with a link to scan.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"cowork.example.com/broker/e2e/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	do := drive
	if len(os.Args) > 1 && os.Args[1] == "run" {
		do = run
	}
	err := do(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// root is the checkout: the demo is run from there by make.
func root() (string, error) { return filepath.Abs(".") }

// bin is the folder of the built programs.
func bin() (string, error) {
	top, err := root()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(top, "bin")
	if _, err := os.Stat(filepath.Join(dir, "broker")); err != nil {
		return "", fmt.Errorf("the programs are not built: run `make build`")
	}
	return dir, nil
}

// scripted starts the scripted model and makes the environment in which OpenCode uses it and nothing else.
func scripted(l *lab.Lab) error {
	top, err := root()
	if err != nil {
		return err
	}
	model, err := l.StartAt(filepath.Join(top, "build", "scriptedmodel"), "-addr", "127.0.0.1:0", "-slow", "20s")
	if err != nil {
		return err
	}
	url, err := model.Await(`listening on (http://\S+)`, lab.StartTime)
	if err != nil {
		return err
	}
	l.Env = append(l.Env, "OPENCODE_CONFIG="+filepath.Join(top, "e2e", "opencode.json"), "SCRIPTED_MODEL_URL="+url[1])
	return nil
}

// openCode is the OpenCode that scripts/opencode.sh found or installed.
func openCode() (string, error) {
	path := os.Getenv("OPENCODE_BIN")
	if path == "" {
		return "", fmt.Errorf("OPENCODE_BIN is not set: run `make demo` or `make run`, which find or install OpenCode")
	}
	return path, nil
}

func say(format string, a ...any) { fmt.Printf(format+"\n", a...) }

func indent(text string) string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return ""
	}
	return "    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"
}
