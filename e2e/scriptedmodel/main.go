// Command scriptedmodel is a tiny OpenAI-compatible chat-completions server
// whose answers are chosen by the text of the last user message. It lets a
// real OpenCode runtime be driven without any network or model.
//
// Directives (first one found in the last user message wins; its argument runs
// to the end of the line):
//
//	say: TEXT        answer TEXT
//	run: COMMAND     call the bash tool with COMMAND
//	edit: PATH TEXT  call the write tool (filePath=PATH, content=TEXT)
//	read: PATH       call the read tool
//	ask: QUESTION    call the question tool (options Yes/No); "A | B" asks two questions
//	task: PROMPT     call the task tool: a subagent gets PROMPT (which may be a directive)
//	slow: N          stream N chunks (default 40), one every -slow
//	fail: CODE       answer with that HTTP status and an error body
//	drop:            start a stream and cut the connection
//
// Anything else is echoed. When the conversation ends in a tool result, the
// turn ends with the text "tool result: ..." (first 200 bytes of the result).
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

type chatRequest struct {
	Model    string    `json:"model"`
	Stream   bool      `json:"stream"`
	Messages []message `json:"messages"`
	Tools    []struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	} `json:"tools"`
}

type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// text returns the plain text of a message whose content is either a string or
// a list of typed parts.
func (m message) text() string {
	var s string
	if json.Unmarshal(m.Content, &s) == nil {
		return s
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(m.Content, &parts) != nil {
		return ""
	}
	texts := make([]string, 0, len(parts))
	for _, p := range parts {
		texts = append(texts, p.Text)
	}
	return strings.Join(texts, "\n")
}

// reply is what the script decided to do for one request.
type reply struct {
	text   string        // answer text, sent in a few chunks
	tool   string        // tool name; empty for a text answer
	args   any           // tool arguments
	chunks int           // > 0: that many slow chunks
	delay  time.Duration // pause between slow chunks
	status int           // != 0: fail with this HTTP status
	drop   bool          // cut the stream after the first chunk
}

var directives = []string{"say", "run", "edit", "read", "ask", "task", "slow", "fail", "drop"}

// directive finds the first directive in text and its argument.
func directive(text string) (name, arg string) {
	best := -1
	for _, d := range directives {
		i := strings.Index(text, d+":")
		if i < 0 || (best >= 0 && i >= best) {
			continue
		}
		best, name = i, d
		arg, _, _ = strings.Cut(text[i+len(d)+1:], "\n")
		arg = strings.TrimSpace(arg)
	}
	return name, arg
}

func decide(req chatRequest, slow time.Duration) reply {
	if len(req.Messages) == 0 {
		return reply{text: "no messages"}
	}
	last := req.Messages[len(req.Messages)-1]
	if last.Role == "tool" {
		return reply{text: "tool result: " + clip(last.text(), 200)}
	}
	user := ""
	for _, m := range req.Messages {
		if m.Role == "user" {
			user = m.text()
		}
	}
	// Side requests of the runtime (session titles, summaries) carry no tools.
	if len(req.Tools) == 0 {
		return reply{text: "Scripted title"}
	}
	name, arg := directive(user)
	switch name {
	case "say":
		return reply{text: arg}
	case "run":
		return reply{tool: "bash", args: map[string]any{"command": arg, "description": "Run scripted command"}}
	case "edit":
		path, content, _ := strings.Cut(arg, " ")
		return reply{tool: "write", args: map[string]any{"filePath": path, "content": content + "\n"}}
	case "read":
		return reply{tool: "read", args: map[string]any{"filePath": arg}}
	case "ask":
		return reply{tool: "question", args: map[string]any{"questions": questions(arg)}}
	case "task":
		return reply{tool: "task", args: map[string]any{
			"description": "Scripted task", "prompt": arg, "subagent_type": "general",
		}}
	case "slow":
		n, err := strconv.Atoi(arg)
		if err != nil || n <= 0 {
			n = 40
		}
		return reply{chunks: n, delay: slow}
	case "fail":
		code, err := strconv.Atoi(arg)
		if err != nil || code < 400 || code > 599 {
			code = http.StatusBadRequest
		}
		return reply{status: code}
	case "drop":
		return reply{drop: true}
	}
	return reply{text: "echo: " + clip(user, 500)}
}

// questions makes one question with the options Yes and No of each part between bars.
func questions(arg string) []any {
	var list []any
	for _, q := range strings.Split(arg, "|") {
		list = append(list, map[string]any{
			"question": strings.TrimSpace(q),
			"header":   "Scripted",
			"options": []any{
				map[string]any{"label": "Yes", "description": "Go on"},
				map[string]any{"label": "No", "description": "Stop"},
			},
		})
	}
	return list
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

type server struct {
	slow    time.Duration
	verbose bool
	seq     atomic.Int64
}

func (s *server) completions(w http.ResponseWriter, r *http.Request) {
	var req chatRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 32<<20)).Decode(&req); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	id := fmt.Sprintf("scripted-%d", s.seq.Add(1))
	rep := decide(req, s.slow)
	if s.verbose {
		names := make([]string, 0, len(req.Tools))
		for _, t := range req.Tools {
			names = append(names, t.Function.Name)
		}
		log.Printf("%s stream=%v messages=%d tools=%v -> tool=%q text=%q chunks=%d status=%d",
			id, req.Stream, len(req.Messages), names, rep.tool, clip(rep.text, 60), rep.chunks, rep.status)
	}
	if rep.status != 0 {
		writeError(w, rep.status, "scripted failure")
		return
	}
	if !req.Stream {
		writeJSON(w, http.StatusOK, map[string]any{
			"id": id, "object": "chat.completion", "created": time.Now().Unix(), "model": req.Model,
			"choices": []any{map[string]any{
				"index": 0, "finish_reason": "stop",
				"message": map[string]any{"role": "assistant", "content": rep.text},
			}},
			"usage": usage(),
		})
		return
	}
	s.stream(w, r, id, req.Model, rep)
}

func (s *server) stream(w http.ResponseWriter, r *http.Request, id, model string, rep reply) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	rc := http.NewResponseController(w)
	send := func(delta map[string]any, finish any) bool {
		chunk := map[string]any{
			"id": id, "object": "chat.completion.chunk", "created": time.Now().Unix(), "model": model,
			"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}},
		}
		if finish != nil {
			chunk["usage"] = usage()
		}
		b, err := json.Marshal(chunk)
		if err != nil {
			log.Printf("%s: %v", id, err)
			return false
		}
		if _, err := fmt.Fprintf(w, "data: %s\n\n", b); err != nil {
			return false
		}
		return rc.Flush() == nil
	}
	if !send(map[string]any{"role": "assistant", "content": ""}, nil) {
		return
	}
	finish := "stop"
	switch {
	case rep.drop:
		if !send(map[string]any{"content": "about to drop"}, nil) {
			return
		}
		panic(http.ErrAbortHandler)
	case rep.tool != "":
		args, err := json.Marshal(rep.args)
		if err != nil {
			log.Printf("%s: %v", id, err)
			return
		}
		call := map[string]any{
			"index": 0, "id": "call_" + id, "type": "function",
			"function": map[string]any{"name": rep.tool, "arguments": string(args)},
		}
		if !send(map[string]any{"tool_calls": []any{call}}, nil) {
			return
		}
		finish = "tool_calls"
	case rep.chunks > 0:
		for i := range rep.chunks {
			if !send(map[string]any{"content": fmt.Sprintf("chunk %d ", i+1)}, nil) {
				return
			}
			select {
			case <-r.Context().Done():
				log.Printf("%s: client went away after chunk %d", id, i+1)
				return
			case <-time.After(rep.delay):
			}
		}
	default:
		for _, word := range strings.SplitAfter(rep.text, " ") {
			if !send(map[string]any{"content": word}, nil) {
				return
			}
		}
	}
	if !send(map[string]any{}, finish) {
		return
	}
	if _, err := fmt.Fprint(w, "data: [DONE]\n\n"); err != nil {
		return
	}
	_ = rc.Flush() // the response ends here anyway
}

func usage() map[string]any {
	return map[string]any{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
}

func writeError(w http.ResponseWriter, code int, msg string) {
	writeJSON(w, code, map[string]any{"error": map[string]any{"message": msg, "type": "scripted_error", "code": code}})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Printf("write response: %v", err)
	}
}

func run() error {
	addr := flag.String("addr", "127.0.0.1:0", "listen address (port 0 picks a free one; the URL is printed)")
	slow := flag.Duration("slow", 250*time.Millisecond, "pause between the chunks of a slow: answer")
	verbose := flag.Bool("v", false, "log every request")
	flag.Parse()

	s := &server{slow: *slow, verbose: *verbose}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.completions)
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []any{
			map[string]any{"id": "scripted", "object": "model", "owned_by": "local"},
		}})
	})
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s/v1\n", ln.Addr())
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "scriptedmodel:", err)
		os.Exit(1)
	}
}
