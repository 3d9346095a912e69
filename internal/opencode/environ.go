package opencode

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ownPrefixes are the variables of our programs, which may hold secrets.
var ownPrefixes = []string{"DESKTOP_AGENT_", "SURFACE_", "BROKER_", "COWORK_"}

// serverPrefix are the variables by which a user would set up OpenCode's server himself.
const serverPrefix = "OPENCODE_SERVER_"

// quiet switches off what OpenCode does over the network by itself, its own extensions
// and a project's own configuration.
var quiet = []string{
	"OPENCODE_DISABLE_AUTOUPDATE=1", "OPENCODE_DISABLE_MODELS_FETCH=1", "OPENCODE_DISABLE_LSP_DOWNLOAD=1",
	"OPENCODE_DISABLE_DEFAULT_PLUGINS=1", "OPENCODE_DISABLE_PROJECT_CONFIG=1",
}

// environ is the environment of a runtime. The password is here and nowhere else: not in
// its arguments, which everyone on the machine can read.
func (e *Executor) environ(p *process) ([]string, error) {
	env := slices.DeleteFunc(slices.Clone(e.opts.Environ), func(v string) bool { return !e.passes(v) })
	if e.opts.Mode == Isolated {
		home := filepath.Join(e.opts.StateDir, "home")
		if err := os.MkdirAll(home, 0o700); err != nil {
			return nil, err
		}
		env = append(env, "HOME="+home)
		for _, kind := range []string{"data", "config", "state", "cache"} {
			env = append(env, "XDG_"+strings.ToUpper(kind)+"_HOME="+filepath.Join(home, kind))
		}
		env = append(env, quiet...)
	} else {
		env = append(env, "OPENCODE_DISABLE_AUTOUPDATE=1") // its files are pinned by who started us
	}
	env = append(env, e.opts.Env...)
	return append(env, "OPENCODE_SERVER_PASSWORD="+string(p.Password), "OPENCODE_SERVER_USERNAME="+userName, markerName+"="+p.Marker), nil
}

// passes says whether a variable of the surroundings reaches the runtime.
func (e *Executor) passes(v string) bool {
	for _, prefix := range append([]string{serverPrefix}, ownPrefixes...) {
		if strings.HasPrefix(v, prefix) {
			return false
		}
	}
	if e.opts.Mode != Isolated {
		return true
	}
	if strings.HasPrefix(v, "OPENCODE_CONFIG=") {
		return true // said on purpose: which providers and permissions
	}
	return !strings.HasPrefix(v, "OPENCODE") && !strings.HasPrefix(v, "XDG_") && !strings.HasPrefix(v, "HOME=")
}
