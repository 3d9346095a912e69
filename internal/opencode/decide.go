package opencode

import (
	"context"
	"net/http"
	"slices"

	"cowork.example.com/broker/pkg/wire"
)

// decide answers an approval (once or reject, never always) or a question, after looking
// that it waits and belongs to the session named.
func (e *Executor) decide(ctx context.Context, ep *endpoint, c wire.ExecCommand) (wire.ExecResult, error) {
	form := question
	if c.Kind == kindAllow {
		form = permission
	}
	if !form.MatchString(c.RequestID) {
		return wire.ExecResult{}, invalid("the request's id is missing or malformed")
	}
	s, err := e.known(ctx, ep, c.SessionID)
	if err != nil {
		return wire.ExecResult{}, err
	}
	a, err := e.stillOpen(ctx, ep, s, c)
	if err != nil {
		return wire.ExecResult{}, err
	}
	path, body, decision, err := reply(c, a)
	if err != nil {
		return wire.ExecResult{}, err
	}
	_, err = ep.call(ctx, http.MethodPost, path, s.Directory, nil, body, nil)
	if notFound(err) {
		return wire.ExecResult{}, e.tooLate(c.RequestID)
	}
	return wire.ExecResult{Decision: decision}, err
}

// stillOpen finds a command's request among the pending ones of its session's tree.
func (e *Executor) stillOpen(ctx context.Context, ep *endpoint, s tracked, c wire.ExecCommand) (asked, error) {
	pending, err := ep.pending(ctx, s.Directory)
	if err != nil {
		return asked{}, err
	}
	i := slices.IndexFunc(pending, func(a asked) bool { return a.ID == c.RequestID })
	if i < 0 {
		return asked{}, e.tooLate(c.RequestID)
	}
	a := pending[i]
	inside, err := e.within(ctx, ep.client, a.SessionID, s.ID)
	if err != nil {
		return asked{}, err
	}
	if !inside {
		return asked{}, &wire.ExecError{Code: wire.ExecNotFound, Message: "the request belongs to another session"}
	}
	states, err := ep.statuses(ctx, s.Directory)
	if err != nil {
		return asked{}, err
	}
	waits, err := stillWaits(ctx, ep.client, a, states)
	if err == nil && !waits {
		err = e.tooLate(c.RequestID)
	}
	return a, err
}

// tooLate says that a request is not open, and what became of it if that was seen.
func (e *Executor) tooLate(id string) error {
	switch d, _ := e.tracker.decision(id); d {
	case "":
		return &wire.ExecError{Code: wire.ExecNotPending, Message: "this request is not open"}
	case wire.DecisionLost:
		return &wire.ExecError{Code: wire.ExecNotPending, Message: "this request was lost: its turn ended before anyone decided"}
	default:
		return &wire.ExecError{Code: wire.ExecDecided, Message: "this request was already " + d}
	}
}

// reply is the call that carries out a decision, and what the request becomes by it.
func reply(c wire.ExecCommand, a asked) (path string, body any, decision string, err error) {
	switch c.Kind {
	case kindAllow:
		answer := map[string]string{"reply": "once"}
		if !c.Allow {
			answer["reply"] = "reject"
			if c.Reason != "" {
				answer["message"] = c.Reason
			}
		}
		return "/permission/" + c.RequestID + "/reply", answer, wanted(c), nil
	case kindReply:
		if len(c.Answers) != len(a.Questions) {
			return "", nil, "", invalid("%d answers for %d questions", len(c.Answers), len(a.Questions))
		}
		return "/question/" + c.RequestID + "/reply", map[string]any{"answers": notNil(c.Answers)}, wanted(c), nil
	}
	return "/question/" + c.RequestID + "/reject", nil, wanted(c), nil
}

// notNil replaces absent answers by empty ones: OpenCode wants arrays.
func notNil(answers [][]string) [][]string {
	list := make([][]string, 0, len(answers))
	for _, a := range answers {
		list = append(list, append([]string{}, a...))
	}
	return list
}

// wanted is what a request becomes by a command.
func wanted(c wire.ExecCommand) string {
	switch {
	case c.Kind == kindReply:
		return wire.DecisionAnswered
	case c.Kind == kindReject:
		return wire.DecisionRejected
	case c.Allow:
		return wire.DecisionAllowed
	}
	return wire.DecisionDenied
}
