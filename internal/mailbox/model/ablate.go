package model

// Ablation is one rule taken out.
type Ablation struct {
	Name   string
	Remove func(*Rules)
}

// Ablations are all rules, each of which must be needed in one of the worlds.
func Ablations() []Ablation {
	return []Ablation{
		{"the fencing token", func(r *Rules) { r.Token = false }},
		{"the report rule", func(r *Rules) { r.Report = false }},
		{"the tombstone", func(r *Rules) { r.Tombstone = false }},
		{"dropping what is of another link", func(r *Rules) { r.LinkAtAgent = false }},
		{"the new token in the report's answer", func(r *Rules) { r.NewToken = false }},
		{"noticing another journal", func(r *Rules) { r.JournalID = false }},
		{"outcome_unknown for what was accepted and is gone", func(r *Rules) { r.Unknown = false }},
		{"waiting for an old call after a crash", func(r *Rules) { r.AskExecutor = false }},
		{"asking the desktop to stop", func(r *Rules) { r.AskToStop = false }},
		{"the unknown holder after a restore", func(r *Rules) { r.UnknownOwner = false }},
	}
}

// Worlds are those that are explored.
func Worlds(faults int) []World {
	return []World{
		{Faults: faults},
		{Faults: faults, Confirm: true},
		{Faults: faults, DesktopRestore: true},
		{Faults: faults, BrokerRestore: true},
	}
}

// String names a world.
func (w World) String() string {
	switch {
	case w.Confirm:
		return "a person confirms"
	case w.DesktopRestore:
		return "the desktop may be restored"
	case w.BrokerRestore:
		return "the broker may be restored"
	}
	return "crashes and lost messages"
}

// Needed looks for a world in which something is wrong under rules that lack one, and stops at the first.
func Needed(r Rules, faults int) (Result, World, bool) {
	for _, w := range Worlds(faults) {
		if res := FirstWrong(r, w); !res.Safe() && res.Complete {
			return res, w, true
		}
	}
	return Result{}, World{}, false
}
