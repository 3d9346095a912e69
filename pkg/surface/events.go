package surface

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

// Event is something that happened on the desktop, verified and opened.
type Event struct {
	wire.Event
	Decide bool // sealed for those who decide: a request's full text
}

// maxEpochs bounds the keys that are remembered.
const maxEpochs = 32

// learnEpoch opens an announcement. One that this surface cannot open is an error: the broker was to give it ours.
func (s *Surface) learnEpoch(box []byte) error {
	keys, err := s.keys.OpenEpoch(s.dsig, box)
	if err != nil {
		return fmt.Errorf("the broker gave event keys that the desktop did not sign for this surface: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epochs[keys.Header.Epoch] = keys
	if len(s.epochs) > maxEpochs {
		oldest := keys
		for _, each := range s.epochs {
			if each.Header.Issued < oldest.Header.Issued {
				oldest = each
			}
		}
		delete(s.epochs, oldest.Header.Epoch)
	}
	return nil
}

func (s *Surface) epoch(id proof.EpochID) (*seal.EpochKeys, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, ok := s.epochs[id]
	return keys, ok
}

// errUnknownEpoch: a batch of an epoch which was not announced to this surface.
var errUnknownEpoch = errors.New("events of an epoch that was not announced to this surface")

// openBatch verifies a batch and opens its events; none when it is for those who decide and this surface does not.
func (s *Surface) openBatch(raw []byte) (proof.BatchHeader, []Event, error) {
	b, err := proof.OpenBatch(s.dsig, raw)
	if err != nil {
		return proof.BatchHeader{}, nil, fmt.Errorf("the broker gave events that the desktop did not sign: %w", err)
	}
	keys, ok := s.epoch(b.Header.Epoch)
	if !ok {
		return b.Header, nil, errUnknownEpoch
	}
	h, body, err := keys.Open(s.dsig, raw)
	if errors.Is(err, seal.ErrNoKey) {
		return h, nil, nil
	}
	if err != nil {
		return h, nil, err
	}
	var plain []wire.Event
	if err := json.Unmarshal(body, &plain); err != nil {
		return h, nil, fmt.Errorf("the desktop's events cannot be read: %w", err)
	}
	events := make([]Event, len(plain))
	for i, e := range plain {
		events[i] = Event{Event: e, Decide: h.Key == proof.KeyDecide}
	}
	return h, events, nil
}

// Request is an open approval or question. Without the decide scope only Summary is known.
type Request struct {
	wire.RequestSummary
	Full   *wire.Request // nil without its text
	Digest proof.Digest  // over the request's exact bytes; zero without them
	Shown  time.Time     // when this surface opened it
}

// requestOf takes a request out of an event.
func (s *Surface) requestOf(e Event) (Request, error) {
	var r Request
	r.Shown = s.opts.now()
	if e.Decide {
		r.Full = &wire.Request{}
		if err := json.Unmarshal(e.Data, r.Full); err != nil {
			return r, fmt.Errorf("the desktop's request cannot be read: %w", err)
		}
		r.Digest = proof.RequestDigest(s.pairing, e.Data)
		r.RequestSummary = wire.RequestSummary{ID: r.Full.ID, Kind: r.Full.Kind, Action: r.Full.Action, Asked: r.Full.Asked}
		return r, nil
	}
	return r, json.Unmarshal(e.Data, &r.RequestSummary)
}
