package opencode

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cowork.example.com/broker/pkg/wire"
)

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := Options{Mode: Own, Binary: "b", StateDir: dir, Projects: []wire.ExecProject{{Name: "p", Dir: dir}}}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		edit func(*Options)
	}{
		{"mode", func(o *Options) { o.Mode = "" }},
		{"no binary", func(o *Options) { o.Binary = "" }},
		{"no state folder", func(o *Options) { o.Mode, o.StateDir = Isolated, "" }},
		{"no project", func(o *Options) { o.Projects = nil }},
		{"no name", func(o *Options) { o.Projects[0].Name = "" }},
		{"name twice", func(o *Options) { o.Projects = append(o.Projects, o.Projects[0]) }},
		{"missing folder", func(o *Options) { o.Projects[0].Dir = filepath.Join(dir, "none") }},
		{"file as folder", func(o *Options) { o.Projects[0].Dir = file }},
		{"attach without URL", func(o *Options) { o.Mode = Attach }},
	} {
		o := good
		o.Projects = slices.Clone(good.Projects)
		tt.edit(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", tt.name)
		}
	}
}

func TestAttachURL(t *testing.T) {
	for _, good := range []string{"http://127.0.0.1:4096", "http://[::1]:4096/", "http://localhost:1"} {
		if got, err := attachURL(good); err != nil || got != strings.TrimSuffix(good, "/") {
			t.Errorf("%s: %q, %v", good, got, err)
		}
	}
	for _, bad := range []string{
		"", "127.0.0.1:4096", "http://127.0.0.1", "https://127.0.0.1:1", "http://192.168.1.2:4096", "http://example.com:80",
		"http://127.0.0.1.example.com:1", "http://127.0.0.1:1/path", "http://127.0.0.1:1?auth_token=x", "http://opencode:secretword@127.0.0.1:1",
	} {
		if _, err := attachURL(bad); err == nil || strings.Contains(err.Error(), "secretword") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestProject(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	inner := filepath.Join(root, "outer", "inner")
	if err := os.MkdirAll(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(root, "link")
	if err := os.Symlink(filepath.Join(root, "outer"), link); err != nil {
		t.Fatal(err)
	}
	e, err := New(Options{Mode: Own, Binary: "b", StateDir: root, Projects: []wire.ExecProject{{Name: "outer", Dir: link}, {Name: "inner", Dir: inner}}})
	if err != nil {
		t.Fatal(err)
	}
	outer := filepath.Join(root, "outer")
	for dir, want := range map[string]string{
		outer: "outer", inner: "inner", inner + "/deep": "inner", outer + "/other": "outer",
		outer + "side": "-", root: "-", "": "-", "/": "-",
	} {
		name, ok := e.project(dir)
		if !ok {
			name = "-"
		}
		if name != want {
			t.Errorf("%q is in %q, want %q", dir, name, want)
		}
	}
	if dir, ok := e.projectDir(""); !ok || dir != outer {
		t.Errorf("the default is %q", dir)
	}
	if _, ok := e.projectDir("none"); ok {
		t.Error("an unknown name has a folder")
	}
}

func TestEnviron(t *testing.T) {
	around := []string{
		"PATH=/bin", "HOME=/home/u", "XDG_DATA_HOME=/home/u/data", "OPENCODE_CONFIG=/home/u/c", "OPENCODE_PURE=0", "OPENCODE_SERVER_PASSWORD=theirs",
		"DESKTOP_AGENT_CODE=secret", "BROKER_PEPPER=secret", "SURFACE_TOKEN=secret", "COWORK_RUNTIME=other", "PROVIDER_KEY=k",
	}
	p := &process{Password: "ours", Marker: "m"}
	for _, tt := range []struct {
		mode       string
		want, none []string
	}{
		{
			Own,
			[]string{"PATH=/bin", "HOME=/home/u", "XDG_DATA_HOME=/home/u/data", "OPENCODE_CONFIG=/home/u/c", "PROVIDER_KEY=k"},
			[]string{"OPENCODE_DISABLE_PROJECT_CONFIG"},
		},
		{
			Isolated,
			[]string{"PATH=/bin", "PROVIDER_KEY=k", "OPENCODE_CONFIG=/home/u/c", "OPENCODE_DISABLE_PROJECT_CONFIG=1", "OPENCODE_DISABLE_MODELS_FETCH=1"},
			[]string{"HOME=/home/u", "XDG_DATA_HOME=/home/u", "OPENCODE_PURE"},
		},
	} {
		e, err := New(Options{
			Mode: tt.mode, Binary: "b", StateDir: t.TempDir(), Projects: []wire.ExecProject{{Name: "p", Dir: t.TempDir()}},
			Environ: around, Env: []string{"EXTRA=1"},
		})
		if err != nil {
			t.Fatal(err)
		}
		env, err := e.environ(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range append(tt.want, "EXTRA=1", "OPENCODE_SERVER_PASSWORD=ours", "OPENCODE_SERVER_USERNAME=opencode", "COWORK_RUNTIME=m") {
			if !slices.Contains(env, w) {
				t.Errorf("%s: %s is missing", tt.mode, w)
			}
		}
		for _, n := range append(tt.none, "OPENCODE_SERVER_PASSWORD=theirs", "DESKTOP_AGENT_", "BROKER_", "SURFACE_", "COWORK_RUNTIME=other") {
			if slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, n) }) {
				t.Errorf("%s: %s passes", tt.mode, n)
			}
		}
	}
	if len(around) != 11 || around[5] != "OPENCODE_SERVER_PASSWORD=theirs" {
		t.Error("the caller's environment was changed")
	}
}

func TestReadPassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(file, []byte(" s3cret \nsecond line"), 0o600); err != nil {
		t.Fatal(err)
	}
	if pw, err := readPassword(file); err != nil || pw != "s3cret" {
		t.Errorf("read %q, %v", string(pw), err)
	}
	if pw, err := readPassword(""); err != nil || pw != "" {
		t.Errorf("without a file: %q, %v", string(pw), err)
	}
	if _, err := readPassword(file + "x"); err == nil {
		t.Error("a missing file is no error")
	}
	if err := os.WriteFile(file, []byte(strings.Repeat("x", maxPassword+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readPassword(file); err == nil {
		t.Error("one byte over passes")
	}
}
