//go:build e2e

package kill

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// runtime asks the OpenCode that the agent's run file names, past all of our programs.
type runtime struct {
	base     string
	password string
	dir      string // of the project
	http     http.Client
}

// openRuntime reads the run file.
func openRuntime(t *testing.T, r *rig) *runtime {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(r.desktop.Dir(), "opencode", "opencode.run"))
	check(t, err)
	var file struct {
		Port     int    `json:"port"`
		Password string `json:"password"`
	}
	check(t, json.Unmarshal(raw, &file))
	dir, err := filepath.EvalSymlinks(r.desktop.Project)
	check(t, err)
	return &runtime{base: "http://127.0.0.1:" + strconv.Itoa(file.Port), password: file.Password, dir: dir, http: http.Client{Timeout: time.Minute}}
}

func (o *runtime) get(ctx context.Context, path string, q url.Values, out any) (http.Header, error) {
	q.Set("directory", o.dir)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.base+path+"?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth("opencode", o.password)
	res, err := o.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("OpenCode answered %s to %s", res.Status, path)
	}
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	return res.Header, json.Unmarshal(raw, out)
}

// tally is what OpenCode holds: how often each text stands in a user's message, and how often each title was given.
type tally struct {
	texts    map[string]int
	sessions map[string]int
	ids      []string
}

// count reads every session and every message.
func (o *runtime) count(ctx context.Context) (tally, error) {
	t := tally{texts: map[string]int{}, sessions: map[string]int{}}
	var all []struct {
		ID       string         `json:"id"`
		Metadata map[string]any `json:"metadata"`
	}
	if _, err := o.get(ctx, "/session", url.Values{"limit": {"10000"}}, &all); err != nil {
		return t, err
	}
	for _, s := range all {
		t.ids = append(t.ids, s.ID)
		command, _ := s.Metadata["cowork.command"].(string)
		t.sessions[command]++
		if err := o.countIn(ctx, s.ID, t.texts); err != nil {
			return t, err
		}
	}
	return t, nil
}

func (o *runtime) countIn(ctx context.Context, session string, texts map[string]int) error {
	for before := ""; ; {
		var page []struct {
			Info struct {
				Role string `json:"role"`
			} `json:"info"`
			Parts []struct {
				Type string `json:"type"`
				Text string `json:"text"`
			} `json:"parts"`
		}
		q := url.Values{"limit": {"100"}}
		if before != "" {
			q.Set("before", before)
		}
		h, err := o.get(ctx, "/session/"+session+"/message", q, &page)
		if err != nil {
			return err
		}
		for _, m := range page {
			for _, p := range m.Parts {
				if m.Info.Role == "user" && p.Type == "text" {
					texts[p.Text]++
				}
			}
		}
		if before = h.Get("X-Next-Cursor"); before == "" || len(page) == 0 {
			return nil
		}
	}
}

// written counts the lines that the shell of OpenCode left in the project's file.
func (r *rig) written() map[string]int {
	raw, err := os.ReadFile(filepath.Join(r.desktop.Project, ranFile))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	lines := map[string]int{}
	for _, line := range strings.Fields(string(raw)) {
		lines[line]++
	}
	return lines
}

// ranFile is where approved commands write a word each.
const ranFile = "ran.txt"

// shell is the command of a prompt that asks to write a word.
func shell(word string) string { return "echo " + word + " >> " + ranFile }
