package agent

import (
	"context"
	"path/filepath"
	"time"

	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/tunnel"
	"cowork.example.com/broker/pkg/wire"
)

// Status is what `desktop-agent status` shows. It is for the owner only and holds local paths.
type Status struct {
	Version   string          `json:"version"`
	Since     time.Time       `json:"since"`
	Executor  wire.ExecHealth `json:"executor"`
	Listens   []string        `json:"listens"`   // every address that the agent or its runtime listens on
	Counter   uint64          `json:"counter"`   // starts of this journal
	Recovered int             `json:"recovered"` // commands that a crash had left started and that were resolved since
	Pairings  []PairingStatus `json:"pairings"`
}

// PairingStatus is one pairing's part of a Status.
type PairingStatus struct {
	ID       string     `json:"id"`
	Broker   string     `json:"broker"`
	Host     string     `json:"host"`
	Locked   string     `json:"locked,omitempty"` // why; empty when it runs
	Revoked  bool       `json:"revoked,omitempty"`
	Link     LinkStatus `json:"link"`
	Policy   PolicyView `json:"policy"`
	Surfaces int        `json:"surfaces"` // linked now
	Waiting  int        `json:"waiting"`  // commands that wait for a person here
	Running  int        `json:"running"`  // received or started
	Results  int        `json:"results"`  // which the broker has not confirmed
	Events   int        `json:"events"`   // batches which the broker has not confirmed
	Requests int        `json:"requests"` // approvals and questions that are open
}

// LinkStatus says how the link to the broker is.
type LinkStatus struct {
	State   string        `json:"state"` // connected, opening, dialing, waiting, off, stopped
	Since   time.Time     `json:"since,omitzero"`
	NextTry time.Time     `json:"next_try,omitzero"`
	RTT     time.Duration `json:"rtt,omitempty"`
	Problem string        `json:"problem,omitempty"`
}

func (a *Agent) status(ctx context.Context) (Status, error) {
	s := Status{
		Version: a.cfg.Version, Since: a.born, Executor: a.exec.Health(ctx), Counter: a.journal.Meta().Counter,
		Listens: []string{"unix:" + filepath.Join(a.cfg.StateDir, SocketName)}, Pairings: []PairingStatus{},
	}
	if s.Executor.Address != "" {
		s.Listens = append(s.Listens, s.Executor.Address)
	}
	var err error
	if s.Recovered, err = a.journal.Recovered(ctx); err != nil {
		return s, err
	}
	for _, p := range a.list {
		one, err := p.status(ctx)
		if err != nil {
			return s, err
		}
		s.Pairings = append(s.Pairings, one)
	}
	return s, nil
}

func (p *pairingRun) status(ctx context.Context) (PairingStatus, error) {
	row, err := p.journal.Pairing(ctx, p.id)
	if err != nil {
		return PairingStatus{}, err
	}
	s := PairingStatus{
		ID: p.id.String(), Broker: row.BrokerURL, Host: row.Host, Locked: row.Locked, Revoked: !row.Revoked.IsZero(), Link: p.linkStatus(),
	}
	if s.Policy, err = p.policyView(ctx); err != nil {
		return s, err
	}
	surfaces, err := p.journal.Surfaces(ctx, p.id)
	if err != nil {
		return s, err
	}
	for _, surface := range surfaces {
		if surface.Linked(p.now()) {
			s.Surfaces++
		}
	}
	open, err := p.journal.OpenRequests(ctx, p.id)
	if err != nil {
		return s, err
	}
	s.Requests = len(open)
	if s.Events, err = p.journal.OutboxSize(ctx, p.id); err != nil {
		return s, err
	}
	return s, p.countRows(ctx, &s)
}

func (p *pairingRun) countRows(ctx context.Context, s *PairingStatus) error {
	rows, err := p.journal.Rows(ctx, p.id)
	for _, row := range rows {
		switch row.State {
		case journal.WaitingLocal:
			s.Waiting++
		case journal.Done:
			s.Results++
		default:
			s.Running++
		}
	}
	return err
}

func (p *pairingRun) linkStatus() LinkStatus {
	p.mu.Lock()
	r, problem := p.redialer, p.problem
	p.mu.Unlock()
	if r == nil {
		return LinkStatus{State: "stopped"}
	}
	t := r.State()
	s := LinkStatus{Since: t.Since, NextTry: t.NextTry, RTT: t.RTT, Problem: problem}
	if t.LastErr != nil && problem == "" {
		s.Problem = t.LastErr.Error()
	}
	switch t.Phase {
	case tunnel.Connected:
		s.State = "opening"
		if l := p.live(); l != nil {
			s.State = "connected"
			if err := clockSkew(p.now(), p.brokerTime(p.now())); err != nil {
				s.Problem = err.Error()
			}
		}
	case tunnel.Dialing:
		s.State = "dialing"
	case tunnel.Waiting:
		s.State = "waiting"
	case tunnel.Off:
		s.State = "off"
	default:
		s.State = "stopped"
	}
	return s
}

// RetryNow dials every broker at once instead of waiting: for SIGHUP, and after a wake.
func (a *Agent) RetryNow() {
	for _, p := range a.list {
		p.mu.Lock()
		r := p.redialer
		p.mu.Unlock()
		if r != nil {
			r.RetryNow()
		}
	}
}
