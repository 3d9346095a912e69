package surface

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// ErrNoRequest means that no request of this id waits.
var ErrNoRequest = errors.New("no such request waits at the desktop; see what does with `surface requests`")

// ErrNoText means that this surface was not given the text of the request and so cannot answer for it.
var ErrNoText = errors.New("this surface is not shown what the request asks, so it cannot answer it")

// Requests returns what waits for a person, oldest first, as the desktop published it.
func (s *Surface) Requests(ctx context.Context) ([]Request, error) {
	var open wire.OpenRequests
	if err := s.call(ctx, http.MethodGet, at(wire.PathRequests, s.pairing.String()), 0, nil, &open); err != nil {
		return nil, err
	}
	for _, box := range open.Epochs {
		if err := s.learnEpoch(box.Box); err != nil {
			return nil, err
		}
	}
	byID := map[string]Request{}
	for _, batch := range open.Requests {
		_, events, err := s.openBatch(batch.Batch)
		if errors.Is(err, errUnknownEpoch) {
			continue // of a time before this surface was linked
		}
		if err != nil {
			return nil, err
		}
		if err := s.collect(byID, events); err != nil {
			return nil, err
		}
	}
	all := make([]Request, 0, len(byID))
	for _, r := range byID {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Request) int { return cmp.Or(cmp.Compare(a.Asked, b.Asked), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

// collect keeps the fullest form of each request.
func (s *Surface) collect(byID map[string]Request, events []Event) error {
	for _, e := range events {
		if e.Type != wire.EventRequestOpen {
			continue
		}
		r, err := s.requestOf(e)
		if err != nil {
			return err
		}
		if old, ok := byID[r.ID]; !ok || old.Full == nil {
			byID[r.ID] = r
		}
	}
	return nil
}

// Request returns one request that waits.
func (s *Surface) Request(ctx context.Context, id string) (Request, error) {
	all, err := s.Requests(ctx)
	if err != nil {
		return Request{}, err
	}
	i := slices.IndexFunc(all, func(r Request) bool { return r.ID == id })
	if i < 0 {
		return Request{}, ErrNoRequest
	}
	return all[i], nil
}

// Answer is a person's answer to a request. Decision is allow or deny for a permission, answer or reject for a
// question.
type Answer struct {
	Decision string
	Reason   string
	Answers  [][]string // one list a question
}

// Decide answers exactly the request that was shown: the desktop refuses if it is not the one that waits there.
func (s *Surface) Decide(ctx context.Context, r Request, a Answer, progress func(Outcome)) (Outcome, error) {
	if r.Full == nil {
		return Outcome{}, ErrNoText
	}
	kind := proof.PermissionRespond
	switch a.Decision {
	case "answer":
		kind = proof.QuestionReply
	case "reject":
		kind = proof.QuestionReject
	}
	return s.Do(ctx, kind, wire.Decision{
		SessionID: r.Full.SessionID, RequestID: r.ID, RequestSHA256: r.Digest[:], Decision: a.Decision, Reason: a.Reason,
		Answers: a.Answers, ShownAt: r.Shown.UnixMilli(),
	}, progress)
}
