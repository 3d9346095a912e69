package pairing

import "cowork.example.com/broker/pkg/proof"

// LinkEvent is what can happen to a linking session at the broker.
type LinkEvent byte

// The events. Claims come from the network, Offer, Grant and Burn from the desktop, Reveal and Took from the
// claimer, Cancel from either, Expire from the clock.
const (
	EventClaim      LinkEvent = iota + 1 // a claim that admits
	EventWrongClaim                      // one that does not, and is not the last of MaxCodeTries
	EventLastClaim                       // the wrong claim that uses up the tries
	EventOffer                           // message 3, the first one
	EventReveal                          // message 4, the first one
	EventGrant                           // message 6: the owner typed the right digits
	EventTook                            // the surface signed that it took the grant
	EventBurn                            // the desktop refused: wrong digits, mac, commitment or signature
	EventCancel                          // the owner or the claimer gave up
	EventExpire                          // proof.LinkLife passed
)

var linkEvents = [...]string{
	EventClaim: "claim", EventWrongClaim: "wrong_claim", EventLastClaim: "last_claim", EventOffer: "offer",
	EventReveal: "reveal", EventGrant: "grant", EventTook: "took", EventBurn: "burn",
	EventCancel: "cancel", EventExpire: "expire",
}

// String returns the event's name.
func (e LinkEvent) String() string { return linkEvents[e] }

// LinkEvents returns all events.
func LinkEvents() []LinkEvent {
	all := make([]LinkEvent, 0, len(linkEvents)-1)
	for e := EventClaim; e <= EventExpire; e++ {
		all = append(all, e)
	}
	return all
}

// linkTable is all that can move a session. What is not here is refused and changes nothing: four states are final,
// and every claim after the first burns, right or wrong, whatever came of the first one.
var linkTable = map[proof.LinkState]map[LinkEvent]proof.LinkState{
	proof.LinkOpen: {
		EventClaim:      proof.LinkClaimed,
		EventWrongClaim: proof.LinkOpen,
		EventLastClaim:  proof.LinkBurned,
		EventBurn:       proof.LinkBurned,
		EventCancel:     proof.LinkCancelled,
		EventExpire:     proof.LinkExpired,
	},
	proof.LinkClaimed: {
		EventClaim:      proof.LinkBurned,
		EventWrongClaim: proof.LinkBurned,
		EventLastClaim:  proof.LinkBurned,
		EventOffer:      proof.LinkClaimed,
		EventReveal:     proof.LinkRevealed,
		EventBurn:       proof.LinkBurned,
		EventCancel:     proof.LinkCancelled,
		EventExpire:     proof.LinkExpired,
	},
	proof.LinkRevealed: {
		EventClaim:      proof.LinkBurned,
		EventWrongClaim: proof.LinkBurned,
		EventLastClaim:  proof.LinkBurned,
		EventGrant:      proof.LinkConfirmed,
		EventBurn:       proof.LinkBurned,
		EventCancel:     proof.LinkCancelled,
		EventExpire:     proof.LinkExpired,
	},
	proof.LinkConfirmed: {
		EventClaim:      proof.LinkBurned,
		EventWrongClaim: proof.LinkBurned,
		EventLastClaim:  proof.LinkBurned,
		EventTook:       proof.LinkDone,
		EventBurn:       proof.LinkBurned,
		EventCancel:     proof.LinkCancelled,
		EventExpire:     proof.LinkExpired,
	},
}

// NextLink says where event leads from state; false when it is refused and nothing changes.
func NextLink(state proof.LinkState, event LinkEvent) (proof.LinkState, bool) {
	to, ok := linkTable[state][event]
	if !ok {
		return state, false
	}
	return to, true
}
