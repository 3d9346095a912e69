package seal

import (
	"errors"

	"cowork.example.com/broker/pkg/proof"
)

// Errors of a linking. All but ErrDigits end it.
var (
	ErrState     = errors.New("the linking session does not expect this now")
	ErrDigits    = errors.New("these are not the digits")
	ErrBurned    = errors.New("the linking session is burned")
	ErrOver      = errors.New("the linking session has ended")
	ErrOtherMode = errors.New("the claim is of the other mode")
	ErrNotLinked = errors.New("not linked")
)

// DesktopEvent is what can happen to a linking session at the desktop.
type DesktopEvent byte

// The events of the desktop. Good and bad are decided by the checks of section 3 before the table is asked.
const (
	DClaim       DesktopEvent = iota + 1 // a claim of the session's mode
	DOtherMode                           // a claim of the other mode
	DReveal                              // commitment, mac, signature and version hold
	DBadReveal                           // one of them does not
	DDigits                              // the person typed the right digits
	DWrongDigits                         // wrong ones, with an entry left
	DLastDigits                          // wrong ones in the last entry
	DTook                                // a signed finish: the surface has the grant
	DBadFinish                           // a signed finish: the surface dropped it; or a finish that does not verify
	DLost                                // the broker says that it is over: a second claim, or it ended there
	DCancel                              // the owner gave up
	DExpire                              // proof.LinkLife passed
)

// SurfaceEvent is what can happen to a linking session at the surface.
type SurfaceEvent byte

// The events of the surface.
const (
	SClaim      SurfaceEvent = iota + 1 // the tap: the claim is made
	SOffer                              // an offer that holds
	SBadOffer                           // one that does not
	SGrantLink                          // link mode: a grant that holds
	SGrantCode                          // code mode: a grant that holds; the finish code is awaited
	SBadGrant                           // a grant that does not hold
	SFinish                             // the person typed the right finish code
	SBadFinish                          // or a wrong one: there is one entry
	SLost                               // the broker says that it is over
	SCancel                             // the person gave up
	SExpire                             // proof.LinkLife passed
	lastSurface = SExpire
	lastDesktop = DExpire
)

// desktopTable is all that moves a session at the desktop; anything else is refused and changes nothing. A second
// claim or reveal burns, whatever it says.
var desktopTable = map[proof.LinkState]map[DesktopEvent]proof.LinkState{
	proof.LinkOpen: {
		DClaim: proof.LinkClaimed, DOtherMode: proof.LinkBurned,
		DLost: proof.LinkBurned, DCancel: proof.LinkCancelled, DExpire: proof.LinkExpired,
	},
	proof.LinkClaimed: {
		DClaim: proof.LinkBurned, DOtherMode: proof.LinkBurned,
		DReveal: proof.LinkRevealed, DBadReveal: proof.LinkBurned,
		DLost: proof.LinkBurned, DCancel: proof.LinkCancelled, DExpire: proof.LinkExpired,
	},
	proof.LinkRevealed: {
		DClaim: proof.LinkBurned, DOtherMode: proof.LinkBurned,
		DReveal: proof.LinkBurned, DBadReveal: proof.LinkBurned,
		DDigits: proof.LinkConfirmed, DWrongDigits: proof.LinkRevealed, DLastDigits: proof.LinkBurned,
		DLost: proof.LinkBurned, DCancel: proof.LinkCancelled, DExpire: proof.LinkExpired,
	},
	proof.LinkConfirmed: {
		DClaim: proof.LinkBurned, DOtherMode: proof.LinkBurned,
		DReveal: proof.LinkBurned, DBadReveal: proof.LinkBurned,
		DTook: proof.LinkDone, DBadFinish: proof.LinkBurned,
		DLost: proof.LinkBurned, DCancel: proof.LinkCancelled, DExpire: proof.LinkExpired,
	},
}

// surfaceTable is all that moves a session at the surface. A second offer or grant burns: a surface takes one.
var surfaceTable = map[proof.LinkState]map[SurfaceEvent]proof.LinkState{
	proof.LinkOpen: {
		SClaim: proof.LinkClaimed, SCancel: proof.LinkCancelled, SExpire: proof.LinkExpired,
	},
	proof.LinkClaimed: {
		SOffer: proof.LinkRevealed, SBadOffer: proof.LinkBurned,
		SGrantLink: proof.LinkBurned, SGrantCode: proof.LinkBurned, SBadGrant: proof.LinkBurned,
		SLost: proof.LinkBurned, SCancel: proof.LinkCancelled, SExpire: proof.LinkExpired,
	},
	proof.LinkRevealed: {
		SOffer: proof.LinkBurned, SBadOffer: proof.LinkBurned,
		SGrantLink: proof.LinkDone, SGrantCode: proof.LinkConfirmed, SBadGrant: proof.LinkBurned,
		SLost: proof.LinkBurned, SCancel: proof.LinkCancelled, SExpire: proof.LinkExpired,
	},
	proof.LinkConfirmed: {
		SOffer: proof.LinkBurned, SBadOffer: proof.LinkBurned,
		SGrantLink: proof.LinkBurned, SGrantCode: proof.LinkBurned, SBadGrant: proof.LinkBurned,
		SFinish: proof.LinkDone, SBadFinish: proof.LinkBurned,
		SLost: proof.LinkBurned, SCancel: proof.LinkCancelled, SExpire: proof.LinkExpired,
	},
}

// NextDesktop says where event leads from state at the desktop; false when it is refused and nothing changes.
func NextDesktop(state proof.LinkState, event DesktopEvent) (proof.LinkState, bool) {
	to, ok := desktopTable[state][event]
	if !ok {
		return state, false
	}
	return to, true
}

// NextSurface says where event leads from state at the surface; false when it is refused and nothing changes.
func NextSurface(state proof.LinkState, event SurfaceEvent) (proof.LinkState, bool) {
	to, ok := surfaceTable[state][event]
	if !ok {
		return state, false
	}
	return to, true
}
