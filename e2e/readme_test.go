//go:build e2e && linux

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cowork.example.com/broker/e2e/lab"
)

// shellBlocks returns the command lines of a document's sh blocks, in order, without their comments.
func shellBlocks(t *testing.T, path string) (lines []string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	check(t, err)
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllStringSubmatch(string(raw), -1) {
		for line := range strings.Lines(block[1]) {
			command, _, _ := strings.Cut(line, " #")
			if command = strings.TrimSpace(command); command != "" {
				lines = append(lines, command)
			}
		}
	}
	return lines
}

// TestReadme types the README's commands as they stand there, each at a terminal of its own, and answers what they ask.
// Only the public name and port, for which a test has no certificate, and the word REQUEST are replaced.
func TestReadme(t *testing.T) {
	ctx, l := newLab(t, "bin")
	_ = withModel(t, l) // the mode is the README's: the model alone is ours
	r := &reader{Lab: l, ctx: ctx, t: t, replace: []string{" :443", " " + l.Addr, "broker.example.com", l.Addr}}
	r.arrange()
	for _, line := range shellBlocks(t, filepath.Join("..", "README.md")) {
		if !strings.HasPrefix(line, "make ") { // TestMake
			r.follow(line)
		}
	}
	r.followed()
}

// reader is someone who does what the README says.
type reader struct {
	*lab.Lab
	ctx     context.Context
	t       *testing.T
	replace []string // pairs for strings.NewReplacer
	code    string
	link    *lab.Proc // `desktop-agent link`
	watch   *lab.Proc
	seen    map[string]bool
}

// arrange makes what the README takes for granted: the programs on PATH, a certificate and who trusts it, a project.
func (r *reader) arrange() {
	r.t.Helper()
	r.seen = map[string]bool{}
	r.Env = append(r.Env, "OPENCODE_BIN="+os.Getenv("OPENCODE_BIN"), "PATH="+abs(r.t, r.Bin)+":"+os.Getenv("PATH"),
		"DESKTOP_AGENT_CA="+filepath.Join(r.Dir, "ca.pem"), "SURFACE_CA="+filepath.Join(r.Dir, "ca.pem"))
	_, err := r.Must(r.ctx, "", "broker", "certs", "init", "--dir", r.Dir)
	check(r.t, err)
	check(r.t, os.MkdirAll(filepath.Join(r.Home(), "src", "app"), 0o755))
}

// begin types a line.
func (r *reader) begin(line string) *lab.Proc {
	r.t.Helper()
	p, err := r.Shell(strings.NewReplacer(r.replace...).Replace(line))
	check(r.t, err)
	return p
}

// toEnd types a line, answers its one question, if any, and returns what stood on the terminal when it had succeeded.
func (r *reader) toEnd(line, question, answer string) string {
	r.t.Helper()
	p := r.begin(line)
	if question != "" {
		_, err := p.Await(question, lab.StartTime)
		check(r.t, err)
		check(r.t, p.Type(answer))
	}
	select {
	case <-p.Done():
	case <-r.ctx.Done():
		r.t.Fatalf("%s does not end:\n%s", line, p.Output())
	}
	if code := p.Code(); code != 0 {
		r.t.Fatalf("%s: exit %d\n%s", line, code, p.Output())
	}
	return p.Output()
}

// await waits for what a command that goes on shows.
func (r *reader) await(p *lab.Proc, expr string) []string {
	r.t.Helper()
	found, err := p.Await(expr, lab.StartTime)
	check(r.t, err)
	return found
}

// follow does what one line says.
func (r *reader) follow(line string) {
	r.t.Helper()
	words := strings.Fields(line)
	name := strings.Join(words[:2], " ")
	r.seen[name] = true
	switch name {
	case "broker serve":
		r.await(r.begin(line), `(?m)^ready`)
	case "broker codes":
		r.code = regexp.MustCompile(`enrolment code +(\S+)`).FindStringSubmatch(r.toEnd(line, "", ""))[1]
	case "desktop-agent enrol":
		r.toEnd(line, `not shown`, r.code)
	case "desktop-agent run":
		r.online(r.begin(line))
	case "desktop-agent link":
		r.link = r.begin(line)
		r.await(r.link, `answer approvals`)
		check(r.t, r.link.Type("y"))
	case "surface link":
		join := r.begin(line)
		r.await(join, `not shown`)
		check(r.t, lab.Introduce(r.link, join))
	case "surface prompt":
		if said := r.toEnd(line, "", ""); !strings.Contains(said, "fix the failing test") { // the scripted model says it again
			r.t.Errorf("%s: %s", line, said)
		}
	case "surface watch":
		r.watch = r.begin(line)
	case "surface requests":
		r.request(line)
	case "surface approve":
		r.toEnd(line, `Let this happen, once\?`, "y")
	default:
		r.t.Fatalf("the README says %q, and this test does not know what comes of it", line)
	}
}

// online waits until the agent has its tunnel and its OpenCode.
func (r *reader) online(p *lab.Proc) {
	r.t.Helper()
	for {
		var s lab.Status
		err := r.JSON(r.ctx, "", &s, "desktop-agent", "status")
		if err == nil && s.Executor.State == "ready" && s.Pairings[0].Link.State == "connected" {
			if s.Executor.Executor != "opencode" || len(s.Executor.Projects) != 1 || s.Executor.Projects[0].Name != "app" {
				r.t.Fatalf("%+v", s.Executor)
			}
			return
		}
		select {
		case <-p.Done():
			r.t.Fatalf("the agent ended with %d:\n%s", p.Code(), p.Output())
		default:
			pause(r.ctx, r.t)
		}
	}
}

// request sends a prompt that asks for leave, in a second terminal, and lists what waits.
func (r *reader) request(line string) {
	r.t.Helper()
	ask := r.begin(`surface prompt "run: echo asked for in the README"`)
	r.await(ask, `surface approve`)
	id := regexp.MustCompile(`(?m)^(\S+)  asked `).FindStringSubmatch(r.toEnd(line, "", ""))
	if id == nil {
		r.t.Fatal("no request is listed")
	}
	r.replace = append(r.replace, "REQUEST", id[1])
}

// followed looks at what came of it all: the watching surface saw the approved command's end.
func (r *reader) followed() {
	r.t.Helper()
	if len(r.seen) < 10 {
		r.t.Fatalf("the README has lost commands: %v", r.seen)
	}
	r.await(r.watch, `tool result: asked for in the README`)
	check(r.t, r.watch.Stop(lab.StartTime))
}

// TestMake runs what the README says of make without a terminal: `make run` shows a link and ends, `make demo` drives itself.
// `make test` would run this test again; that make knows it is all that is looked at.
func TestMake(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "README.md"))
	check(t, err)
	want := map[string]string{
		"run": `(?s)you have no OpenCode provider.*https?://\S+/p#1\.\S+.*no terminal here`, "demo": `done in .*over real sockets`, "test": `go test -race`, "help": `make demo`,
	}
	home := t.TempDir()
	for _, found := range regexp.MustCompile("(?m)(?:^|`)make ([a-z-]+)").FindAllStringSubmatch(string(raw), -1) {
		target := found[1]
		expr, unseen := want[target]
		switch delete(want, target); {
		case unseen:
			t.Run(target, func(t *testing.T) { runMake(t, home, target, expr) })
		case !strings.Contains("run demo test help", target):
			t.Errorf("the README says `make %s`, and this test does not know what comes of it", target)
		}
	}
	if len(want) > 0 {
		t.Errorf("the README does not say make %v", want)
	}
}

func runMake(t *testing.T, home, target, expr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	args := []string{"-C", "..", target, "-o", "build", "-o", "build/demo"} // built already, and other tests use it now
	if target == "test" {
		args = append(args, "--dry-run")
	}
	cmd := exec.CommandContext(ctx, "make", args...)
	cmd.Env = append(os.Environ(), "HOME="+home, "MAKEFLAGS=", "OPENCODE_CONFIG=", // nobody's own OpenCode
		"ANTHROPIC_API_KEY=", "OPENAI_API_KEY=", "GEMINI_API_KEY=", "OPENROUTER_API_KEY=")
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOENV"} {
		value, err := exec.CommandContext(ctx, "go", "env", name).Output()
		check(t, err)
		cmd.Env = append(cmd.Env, name+"="+strings.TrimSpace(string(value)))
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !regexp.MustCompile(expr).Match(out) {
		t.Fatalf("make %s: %v\n%s", target, err, out)
	}
}
