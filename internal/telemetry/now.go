package telemetry

import "time"

// Now is the wall clock of the programs: the agent, the broker and the surface
// hand it down as an option, and nothing else asks for the time of day. Only a
// binary built with the tag chaos shifts it, to show what a clock that is off
// does; a test holds that others cannot.
func Now() time.Time { return shift(time.Now()) }
