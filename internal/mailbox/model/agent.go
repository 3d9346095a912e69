package model

import "cowork.example.com/broker/internal/mailbox"

// stepper collects the successors of one state.
type stepper struct {
	Rules
	World
	s   state
	out []edge
}

// edge is one thing that can happen.
type edge struct {
	name  string
	to    state
	fault bool
}

func (x *stepper) add(name string, to state) { x.out = append(x.out, edge{name, to, false}) }

// fault adds something that may happen only so often.
func (x *stepper) fault(name string, to state) {
	if x.s.faults > 0 {
		to.faults--
		x.out = append(x.out, edge{name, to, true})
	}
}

// agent adds what the desktop can do.
func (x *stepper) agent() {
	s := x.s
	if s.calls > 0 {
		n := s
		n.calls--
		n.ran = min(2, s.ran+1)
		x.add("THE EXECUTOR RUNS", n)
	}
	if !s.up {
		n := s
		n.up = true
		x.add("agent restarts", n)
		return
	}
	x.linkChanges()
	x.journalWork()
	for i, m := range s.net {
		switch m.kind {
		case deliver:
			x.delivered(i, m)
		case askStop:
			x.stopAsked(i, m)
		}
	}
}

func (x *stepper) linkChanges() {
	s := x.s
	if s.link == 0 && s.newest < maxEpoch {
		n := s
		n.newest++
		n.link, n.reported = n.newest, false
		x.add("agent connects and reports", n.send(message{kind: report, epoch: n.link, row: s.row}))
	}
	if s.link != 0 {
		n := s
		n.link = 0
		x.fault("link cut", n)
		n.net = [maxMessages]message{}
		x.fault("link cut, all in flight lost", n)
	}
	n := s.without(deliver, askStop)
	n.up, n.link, n.called = false, 0, false
	x.add("agent crashes", n)
	if x.DesktopRestore && s.row != noRow && !s.lost {
		n := s
		n.row, n.rowToken, n.waiting, n.confirmed, n.called, n.lost, n.link = noRow, 0, false, false, false, true, 0
		n.net = [maxMessages]message{}
		x.fault("desktop restored, journal lost", n)
	}
}

// journalWork is what the agent does with its row by itself.
func (x *stepper) journalWork() {
	s := x.s
	switch s.row {
	case received:
		x.beforeStart()
	case started:
		x.callOrAsk()
	}
	state, over := s.row.outcome()
	if over && s.link != 0 && !s.durable && !s.inFlight(result) && (s.reported || !x.Report) {
		x.add("agent sends its result", s.send(message{kind: result, epoch: s.link, token: s.rowToken, state: state}))
	}
}

func (x *stepper) beforeStart() {
	s := x.s
	switch {
	case s.waiting:
		n := s
		n.waiting, n.confirmed = false, true
		x.add("a person confirms", n.tell(accept))
	case x.Confirm && !s.confirmed:
		n := s
		n.waiting = true
		x.add("needs local confirmation", n.tell(waits))
	case s.over:
		n := s
		n.row = lapsed
		x.add("not started: its time is over", n)
	default:
		n := s
		n.row, n.called = started, false
		x.add("row is started", n)
	}
}

// tell sends word of the row, when there is a link.
func (s state) tell(k kind) state {
	if s.link == 0 {
		return s
	}
	return s.send(message{kind: k, epoch: s.link, token: s.rowToken})
}

func (x *stepper) callOrAsk() {
	s, n := x.s, x.s
	switch {
	case s.ran > 0:
		n.row = done
		x.add("the executor shows that it ran", n)
	case s.called: // and no answer yet
	case s.calls > 0 && x.AskExecutor: // an old call may still arrive: wait
	default:
		n.called, n.calls = true, min(2, s.calls+1)
		x.add("executor is called", n)
	}
}

func (x *stepper) delivered(i int, m message) {
	s := x.s
	n := s.take(i)
	switch {
	case x.LinkAtAgent && m.epoch != s.link:
		x.add("agent drops a delivery of another link", n)
	case s.row != noRow:
		n.rowToken = max(n.rowToken, m.token)
		if s.row == received || s.row == started {
			n = n.tell(accept)
		}
		x.add("the journal has it already", n)
	case s.over:
		n.row, n.rowToken = lapsed, m.token
		x.add("agent refuses: its time is over", n)
	default:
		full := n
		if s.link != 0 {
			full = n.send(message{kind: result, epoch: s.link, token: m.token, state: mailbox.Failed})
		}
		x.fault("the desktop's disk is full: refused, nothing journalled", full)
		n.row, n.rowToken = received, m.token
		x.add("journal row is received", n.tell(accept))
	}
}

func (x *stepper) stopAsked(i int, m message) {
	s := x.s
	n := s.take(i)
	switch {
	case x.LinkAtAgent && m.epoch != s.link:
		x.add("agent drops a stop of another link", n)
	case s.row != noRow && s.row != received:
		x.add("agent answers with what is", n)
	default:
		if x.Tombstone || s.row == received {
			n.row = tombstone
			if s.over {
				n.row = lapsed
			}
		}
		n.waiting = false
		if s.link != 0 {
			n = n.send(message{kind: neverRuns, epoch: s.link})
		}
		x.add("agent answers: it will never run", n)
	}
}
