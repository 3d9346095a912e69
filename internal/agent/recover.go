package agent

import (
	"context"
	"errors"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/wire"
)

// Why a pairing is locked at the desktop.
const (
	lockJournal = "journal_changed" // the journal is older than the keystore knows, or not the one it knows
	lockMachine = "machine_changed" // the journal came from another machine
)

// checkJournal holds the journal against what the keystore knows of it, and against this machine (pairing-protocol.md
// section 6). One that was restored or copied locks the pairing until its owner runs recover.
func (p *pairingRun) checkJournal(ctx context.Context) error {
	m := p.journal.Meta()
	id, counter, ok, err := p.ident.Mirror(ctx)
	if err != nil {
		return err
	}
	switch {
	case m.Machine != p.agent.cfg.Machine:
		return p.lock(lockMachine)
	case ok && (id != m.ID || m.Counter-1 < counter):
		return p.lock(lockJournal)
	case p.row.Locked != "":
		return nil
	}
	if err := p.ident.SetMirror(ctx, m.ID, m.Counter); err != nil {
		return err
	}
	p.unlock()
	return nil
}

// lock stops the pairing, with its line, until its owner acts.
func (p *pairingRun) lock(reason string) error {
	p.log.Error("the pairing is locked: its owner must run `desktop-agent recover`", "reason", reason)
	err := p.record([]journal.Line{p.byDesktop(audit.JournalChanged, audit.Refused, reason)}, journal.LockPairing(p.id, reason))
	if errors.Is(err, journal.ErrState) {
		return nil // locked for this reason before
	}
	return err
}

// unlock lets the run begin.
func (p *pairingRun) unlock() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.started {
		p.started = true
		close(p.unlocked)
	}
}

// isRunning reports whether the pairing is not locked.
func (p *pairingRun) isRunning() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started && !p.ended
}

// recover lets every locked pairing go on (section 6): keys replaced and older halves erased, the journal a new one to
// every broker, and each surface's chain taken from its next signed header. What a command that was open did cannot be
// known from an older journal; the broker asks a person about those.
func (a *Agent) recover(ctx context.Context) error {
	var lines []journal.Line
	var changes []journal.Change
	var locked []*pairingRun
	for _, p := range a.list {
		if p.isRunning() || p.hasEnded() {
			continue
		}
		if err := p.ident.ReplaceAll(ctx, a.cfg.Now()); err != nil {
			return err
		}
		locked = append(locked, p)
		lines = append(lines, p.byDesktop(audit.PairingRecovered, audit.Success, ""))
		changes = append(changes, journal.UnlockPairing(p.id), journal.ResyncSurfaces(p.id))
	}
	if len(locked) == 0 {
		return &ControlError{Code: wire.CodeConflict, Message: "no pairing is locked; there is nothing to recover"}
	}
	if err := a.journal.Adopt(ctx, a.cfg.Now(), a.cfg.Machine, lines, changes...); err != nil {
		return err
	}
	m := a.journal.Meta()
	for _, p := range a.list { // also of those that were not locked: the journal's id is new to all
		if err := p.ident.SetMirror(ctx, m.ID, m.Counter); err != nil {
			return err
		}
	}
	for _, p := range locked {
		p.unlock()
	}
	return nil
}
