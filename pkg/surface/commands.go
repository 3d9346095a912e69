package surface

import (
	"context"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/wire"
)

// The kinds of commands that are not decisions (see Decide). Each waits for the command's end; progress, if not nil,
// gets each new state.

// CreateSession starts a session; the outcome's body names it.
func (s *Surface) CreateSession(ctx context.Context, in wire.CreateSession, progress func(Outcome)) (Outcome, error) {
	return s.Do(ctx, proof.CreateSession, in, progress)
}

// Prompt sends text into a session and returns when the broker has it; Wait follows what becomes of it.
func (s *Surface) Prompt(ctx context.Context, in wire.Prompt) (Sent, error) {
	return s.Send(ctx, proof.Prompt, in)
}

// Abort ends the turn that it names.
func (s *Surface) Abort(ctx context.Context, in wire.Abort, progress func(Outcome)) (Outcome, error) {
	return s.Do(ctx, proof.Abort, in, progress)
}

// Status asks for the sessions, and with the decide scope for what waits.
func (s *Surface) Status(ctx context.Context, progress func(Outcome)) (Outcome, error) {
	return s.Do(ctx, proof.Status, wire.Status{}, progress)
}

// History asks for a page of a session's transcript.
func (s *Surface) History(ctx context.Context, in wire.History, progress func(Outcome)) (Outcome, error) {
	return s.Do(ctx, proof.History, in, progress)
}

// RevokeSurface ends another surface of the pairing, which needs the decide scope, or this one.
func (s *Surface) RevokeSurface(ctx context.Context, id string, progress func(Outcome)) (Outcome, error) {
	return s.Do(ctx, proof.RevokeSurface, wire.RevokeSurface{Surface: id}, progress)
}

// RevokePairing ends the whole pairing; it needs the decide scope.
func (s *Surface) RevokePairing(ctx context.Context, progress func(Outcome)) (Outcome, error) {
	return s.Do(ctx, proof.RevokePairing, wire.RevokePairing{}, progress)
}
