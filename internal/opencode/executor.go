package opencode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// Modes of the runtime.
const (
	// Own supervises an OpenCode with the user's HOME, configuration and sessions.
	Own = "own"
	// Isolated supervises one with folders of its own under StateDir, without the
	// network calls and project configuration that can be switched off.
	Isolated = "isolated"
	// Attach speaks to an OpenCode that someone else runs on this machine.
	Attach = "attach"
)

const (
	// readyWait is how long a command waits for a runtime that is starting.
	readyWait = 60 * time.Second
	// arrival is how long a request whose connection is gone could still arrive
	// (mailbox, "at most once").
	arrival = 30 * time.Second
)

// Options say which runtime to use and what the journal knows of earlier ones.
type Options struct {
	// Mode is Own, Isolated or Attach.
	Mode string
	// Binary is the path of OpenCode (Own, Isolated).
	Binary string
	// URL and PasswordFile name the OpenCode to attach to; its host must be this one.
	URL          string
	PasswordFile string
	// StateDir (made when missing, 0700) holds the run file, the log and, when
	// isolated, everything that OpenCode writes.
	StateDir string
	// Projects are the folders that remote surfaces may reach; the first is the
	// default. Sessions in other folders do not exist for them.
	Projects []wire.ExecProject
	// Environ is the environment of the runtime (usually os.Environ()); variables of
	// this program and of OpenCode's server are taken out. Isolated takes out all of
	// OpenCode's own but OPENCODE_CONFIG. Env is added at the end.
	Environ, Env []string
	// Turns and Requests are those whose end is not in the journal, Since is when the
	// last event was journalled (zero: no catching up beyond those).
	Turns    []wire.ExecTurn
	Requests []wire.ExecRequest
	Since    time.Time
	// Logger gets what the supervisor does; nil discards it.
	Logger *slog.Logger
}

// Executor runs commands on OpenCode. All methods are safe for concurrent use; Run must
// be called once, and commands wait until it has a runtime.
type Executor struct {
	opts     Options
	log      *slog.Logger
	tracker  *tracker
	runtime  *runtime
	minter   minter
	attempts *attempts
	born     time.Time
}

// New checks the options and resolves the project folders. It starts nothing.
func New(o Options) (*Executor, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := checkMode(o); err != nil {
		return nil, err
	}
	projects, err := resolve(o.Projects)
	if err != nil {
		return nil, err
	}
	o.Projects = projects
	now := time.Now()
	return &Executor{
		opts: o, log: o.Logger, born: now,
		tracker:  newTracker(o.Turns, o.Requests, o.Since, now),
		attempts: newAttempts(),
		runtime: newRuntime(wire.ExecHealth{
			Executor: "opencode", Mode: o.Mode, State: wire.RuntimeStopped, Since: now, Projects: projects,
		}),
	}, nil
}

// checkMode refuses options that cannot work, in one sentence.
func checkMode(o Options) error {
	switch o.Mode {
	case Own, Isolated:
		if o.Binary == "" || o.StateDir == "" {
			return fmt.Errorf("opencode: mode %s needs a binary and a state folder", o.Mode)
		}
		return nil
	case Attach:
		_, err := attachURL(o.URL)
		return err
	}
	return fmt.Errorf("opencode: mode %q is none of own, isolated and attach", o.Mode)
}

// attachURL allows plain http to this machine only, and no password in the URL.
func attachURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", errors.New("opencode: the URL to attach to is malformed")
	}
	host := u.Hostname()
	switch {
	case u.User != nil:
		return "", errors.New("opencode: the password belongs into a file, not into the URL")
	case u.Scheme != "http" || u.Port() == "" || (u.Path != "" && u.Path != "/") || u.RawQuery != "":
		return "", errors.New("opencode: attach needs a URL such as http://127.0.0.1:4096")
	case host != "127.0.0.1" && host != "::1" && host != "localhost":
		return "", errors.New("opencode: attach works only with an OpenCode on this machine (127.0.0.1, ::1)")
	}
	return "http://" + u.Host, nil
}

// resolve makes the project folders absolute and real, so that a session's folder can be
// compared with them, and says what loosens permissions in them.
func resolve(projects []wire.ExecProject) ([]wire.ExecProject, error) {
	if len(projects) == 0 {
		return nil, errors.New("opencode: at least one project folder is needed")
	}
	seen := map[string]bool{}
	var list []wire.ExecProject
	for _, p := range projects {
		if p.Name == "" || seen[p.Name] {
			return nil, fmt.Errorf("opencode: project name %q is empty or there twice", p.Name)
		}
		seen[p.Name] = true
		dir, err := filepath.Abs(p.Dir)
		if err == nil {
			dir, err = filepath.EvalSymlinks(dir)
		}
		if err != nil {
			return nil, fmt.Errorf("opencode: folder of project %q: %w", p.Name, err)
		}
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			return nil, fmt.Errorf("opencode: project %q is not a folder", p.Name)
		}
		list = append(list, wire.ExecProject{Name: p.Name, Dir: dir, LoosenedBy: LoosenedBy(dir)})
	}
	return list, nil
}

// project returns the name of the project that a folder belongs to, preferring the
// innermost; ok is false for a folder outside all of them.
func (e *Executor) project(dir string) (name string, ok bool) {
	best := -1
	for _, p := range e.opts.Projects {
		inside := dir == p.Dir || strings.HasPrefix(dir, strings.TrimSuffix(p.Dir, "/")+"/")
		if inside && len(p.Dir) > best {
			best, name = len(p.Dir), p.Name
		}
	}
	return name, best >= 0
}

// projectDir returns the folder of a project; the empty name is the first one.
func (e *Executor) projectDir(name string) (string, bool) {
	for _, p := range e.opts.Projects {
		if name == "" || p.Name == name {
			return p.Dir, true
		}
	}
	return "", false
}

// Prepare makes the id under which a command will be findable later. For a prompt it is
// the message id; every other kind is found by what it has anyway (a created session
// carries the command's id), and gets none.
func (e *Executor) Prepare(kind string) (ref string) {
	if kind == kindPrompt {
		return e.minter.next(time.Now())
	}
	return ""
}

// Health says how the runtime is. It asks nothing and does not wait.
func (e *Executor) Health(context.Context) wire.ExecHealth {
	h, _, _ := e.runtime.see()
	return h
}

// Requests lists what is open: asked of the runtime, without what an abort has left in
// its list, each with the bytes that were first seen.
func (e *Executor) Requests(ctx context.Context) ([]wire.ExecRequest, error) {
	ep, err := e.ready(ctx)
	if err != nil {
		return nil, err
	}
	return e.openRequests(ctx, ep)
}

// ready waits for the runtime, at most readyWait.
func (e *Executor) ready(ctx context.Context) (*endpoint, error) {
	limited, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	ep, err := e.runtime.ready(limited)
	if ctx.Err() != nil {
		return nil, ctx.Err() // the agent stops: not the command's failure
	}
	if err != nil {
		return nil, &wire.ExecError{Code: wire.ExecUnavailable, Message: "OpenCode is not running on the desktop"}
	}
	return ep, nil
}
