package opencode

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"cowork.example.com/broker/pkg/wire"
)

// commandKey is the key of a session's metadata that holds the id of the command which
// made it.
const commandKey = "cowork.command"

// millis is a time as OpenCode writes it.
type millis float64

func (m millis) time() time.Time {
	if m <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(m))
}

// session is what is read of a session; the rest is ignored.
type session struct {
	ID        string         `json:"id"`
	ParentID  string         `json:"parentID"`
	Directory string         `json:"directory"`
	Title     string         `json:"title"`
	Metadata  map[string]any `json:"metadata"`
	Time      struct {
		Created millis `json:"created"`
		Updated millis `json:"updated"`
	} `json:"time"`
}

// status is a session's state. A session that is not in the list of states is idle.
type status struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

// message is one message with its parts.
type message struct {
	Info  info              `json:"info"`
	Parts []json.RawMessage `json:"parts"`
}

// info is a message without its parts.
type info struct {
	ID        string `json:"id"`
	SessionID string `json:"sessionID"`
	Role      string `json:"role"`
	ParentID  string `json:"parentID"`
	Finish    string `json:"finish"`
	Time      struct {
		Created   millis `json:"created"`
		Completed millis `json:"completed"`
	} `json:"time"`
	Error json.RawMessage `json:"error"`
}

// part is what is read of a message part.
type part struct {
	ID        string `json:"id"`
	SessionID string `json:"sessionID"`
	MessageID string `json:"messageID"`
	Type      string `json:"type"`
	CallID    string `json:"callID"`
	State     struct {
		Status   string          `json:"status"`
		Error    string          `json:"error"`
		Metadata json.RawMessage `json:"metadata"`
	} `json:"state"`
}

// asked is what is read of a permission or question request.
type asked struct {
	ID         string            `json:"id"`
	SessionID  string            `json:"sessionID"`
	Permission string            `json:"permission"`
	Questions  []json.RawMessage `json:"questions"`
	Tool       struct {
		MessageID string `json:"messageID"`
		CallID    string `json:"callID"`
	} `json:"tool"`
	exact json.RawMessage
}

// kind tells permissions from questions by the id's prefix.
func (a asked) kind() string {
	if question.MatchString(a.ID) {
		return wire.RequestQuestion
	}
	return wire.RequestPermission
}

func (c *client) session(ctx context.Context, id string) (session, error) {
	var s session
	_, err := c.call(ctx, http.MethodGet, "/session/"+id, "", nil, nil, &s)
	return s, err
}

// sessions lists the sessions of one directory, the last updated first. OpenCode may add
// sessions of other directories; they are left out.
func (c *client) sessions(ctx context.Context, directory string, limit int) ([]session, error) {
	var all, own []session
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if _, err := c.call(ctx, http.MethodGet, "/session", directory, q, nil, &all); err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.Directory == directory {
			own = append(own, s)
		}
	}
	return own, nil
}

func (c *client) statuses(ctx context.Context, directory string) (map[string]status, error) {
	var out map[string]status
	_, err := c.call(ctx, http.MethodGet, "/session/status", directory, nil, nil, &out)
	return out, err
}

func (c *client) message(ctx context.Context, sessionID, id string) (message, error) {
	var m message
	_, err := c.call(ctx, http.MethodGet, "/session/"+sessionID+"/message/"+id, "", nil, nil, &m)
	return m, err
}

// messages reads one page in order of time, the newest page when before is empty; next
// is the cursor of the page before it, empty at the beginning.
func (c *client) messages(ctx context.Context, s session, before string, limit int) (page []message, next string, err error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if before != "" {
		q.Set("before", before)
	}
	h, err := c.call(ctx, http.MethodGet, "/session/"+s.ID+"/message", s.Directory, q, nil, &page)
	if err != nil {
		return nil, "", err
	}
	return page, h.Get("X-Next-Cursor"), nil
}

// cursorOf is OpenCode's cursor for the page before a message.
func cursorOf(m info) (string, error) {
	b, err := json.Marshal(struct {
		ID   string `json:"id"`
		Time int64  `json:"time"`
	}{m.ID, int64(m.Time.Created)})
	return base64.RawURLEncoding.EncodeToString(b), err
}

// pending lists the requests of one directory as OpenCode has them, the stale included.
func (c *client) pending(ctx context.Context, directory string) ([]asked, error) {
	var list []asked
	for _, path := range []string{"/permission", "/question"} {
		var raw []json.RawMessage
		if _, err := c.call(ctx, http.MethodGet, path, directory, nil, nil, &raw); err != nil {
			return nil, err
		}
		for _, r := range raw {
			if a, ok := readAsked(r); ok {
				list = append(list, a)
			}
		}
	}
	return list, nil
}

// readAsked reads a request and keeps its bytes; ok is false for what is none.
func readAsked(raw json.RawMessage) (a asked, ok bool) {
	if json.Unmarshal(raw, &a) != nil || !sessionID.MatchString(a.SessionID) {
		return a, false
	}
	a.exact = raw
	return a, permission.MatchString(a.ID) || question.MatchString(a.ID)
}

// errorName returns the name inside OpenCode's error object.
func errorName(raw json.RawMessage) string {
	var e struct {
		Name string `json:"name"`
	}
	if json.Unmarshal(raw, &e) != nil {
		return ""
	}
	return e.Name
}

// toolPart finds the part of a tool call.
func toolPart(m message, callID string) (part, bool) {
	for _, raw := range m.Parts {
		var p part
		if json.Unmarshal(raw, &p) == nil && p.Type == "tool" && p.CallID == callID {
			return p, true
		}
	}
	return part{}, false
}
