package model

import "cowork.example.com/broker/internal/mailbox"

// held says whether the command is with the desktop, or may be.
func (s state) held() bool {
	return s.b == mailbox.Leased || s.b == mailbox.Accepted || s.b == mailbox.WaitingLocal
}

// on moves the broker's row as the product's table says.
func (s state) on(t mailbox.Trigger, carried mailbox.State) state {
	if st := mailbox.Next(s.b, t, carried); st.Verdict == mailbox.Move {
		s.b = st.To
	}
	return s
}

// broker adds what the broker can do.
func (x *stepper) broker() {
	x.claim()
	for i, m := range x.s.net {
		n := x.s.take(i)
		switch m.kind {
		case report:
			x.reportArrives(n, m)
		case accept:
			x.wordArrives("accepted", mailbox.OnAccept, n, m)
		case waits:
			x.wordArrives("waiting", mailbox.OnWait, n, m)
		case result:
			x.resultArrives(n, m)
		case neverRuns:
			x.add("broker: it will never run", n.on(mailbox.OnTombstone, n.stopOutcome()))
		}
	}
	x.timePasses()
	x.senderCancels()
	x.stopsAgain()
	x.restore()
}

// stopOutcome is how a stopped command ends.
func (s state) stopOutcome() mailbox.State {
	if s.cancelled {
		return mailbox.Cancelled
	}
	return mailbox.Expired
}

func (x *stepper) claim() {
	s := x.s
	if s.b != mailbox.Queued || s.over || s.cancelled || s.token >= maxToken || s.newest == 0 {
		return
	}
	if x.Report && !(s.reported && s.link == s.newest) {
		return
	}
	n := s.on(mailbox.OnClaim, 0)
	n.token++
	n.deliveries++
	n.lease = s.newest
	if s.link == s.newest {
		n = n.send(message{kind: deliver, epoch: s.newest, token: n.token})
	}
	x.add("broker leases and delivers", n)
}

func (x *stepper) reportArrives(n state, m message) {
	if x.Report && m.epoch != n.newest {
		x.add("broker drops the report of an older link", n)
		return
	}
	mine := m.epoch == n.link
	if !(x.Report && n.lease >= m.epoch) {
		if m.row == noRow && !x.Unknown && n.held() {
			n.b = mailbox.Leased // as if it had never been accepted
		}
		n = n.on(x.reportTrigger(n, m), 0)
	}
	if mine {
		n.reported = true
	}
	if mine && m.row != noRow && n.token > 0 && x.NewToken {
		n.rowToken = n.token // the answer's token; which number it has makes no difference here
	}
	if mine && x.AskToStop && n.held() && (n.cancelled || n.over) {
		n = n.send(message{kind: askStop, epoch: n.link})
	}
	x.add("broker applies the report", n)
}

// reportTrigger classifies as the product does.
func (x *stepper) reportTrigger(n state, m message) mailbox.Trigger {
	switch {
	case m.row == received && n.b == mailbox.WaitingLocal:
		return mailbox.OnPresentWaiting
	case m.row != noRow:
		return mailbox.OnPresent
	case n.lost && x.JournalID && (x.Unknown || n.b != mailbox.Leased):
		return mailbox.OnAbsentLost
	}
	switch {
	case n.cancelled:
		return mailbox.OnAbsentStopped
	case n.over && x.AskToStop:
		return mailbox.OnAbsentExpired
	case n.deliveries >= maxDeliveries:
		return mailbox.OnAbsentWorn
	}
	return mailbox.OnAbsent
}

func (x *stepper) wordArrives(name string, t mailbox.Trigger, n state, m message) {
	if x.Token && m.token != n.token {
		x.add("broker refuses a stale word", n)
		return
	}
	x.add("broker: "+name, n.on(t, 0))
}

func (x *stepper) resultArrives(n state, m message) {
	switch {
	case x.Token && m.token != n.token:
		x.add("broker refuses a stale result", n)
	case n.b == m.state || n.b.Terminal() && n.b != mailbox.OutcomeUnknown:
		n.durable = true
		x.add("broker has a result already", n)
	default:
		n = n.on(mailbox.OnResult, m.state)
		n.durable = true
		x.add("broker: result "+m.state.String(), n)
	}
}

func (x *stepper) timePasses() {
	s := x.s
	if !s.over {
		n := s
		n.over = true
		if x.AskToStop && s.link != 0 && s.reported && s.held() {
			n = n.send(message{kind: askStop, epoch: s.link})
		}
		x.add("time passes", n)
		return
	}
	switch {
	case s.b == mailbox.Queued:
		x.add("broker: expired", s.on(mailbox.OnExpire, 0))
	case s.held() && !x.AskToStop:
		n := s
		n.b = mailbox.Expired
		x.add("broker: expired without asking", n)
	case s.held():
		x.out = append(x.out, edge{givesUp, s.on(mailbox.OnForget, 0), false})
	}
}

// givesUp is the end that waits 30 days; a command that could end only so counts as stuck.
const givesUp = "30 days pass without word"

func (x *stepper) senderCancels() {
	s := x.s
	if s.cancelled || s.b.Terminal() {
		return
	}
	n := s
	n.cancelled = true
	switch {
	case s.b == mailbox.Queued:
		n = n.on(mailbox.OnCancel, 0)
	case !x.AskToStop:
		n.b = mailbox.Cancelled
	case s.link != 0 && s.reported:
		n = n.send(message{kind: askStop, epoch: s.link})
	}
	x.add("its sender cancels", n)
}

// stopsAgain: the wish is a column of the row, so that a lost question is asked again.
func (x *stepper) stopsAgain() {
	s := x.s
	if x.AskToStop && s.held() && (s.over || s.cancelled) && s.link != 0 && s.reported && !s.inFlight(askStop) && s.row <= received {
		x.add("broker asks again to stop", s.send(message{kind: askStop, epoch: s.link}))
	}
}

// restore puts the broker back to a time when the command was open.
func (x *stepper) restore() {
	s := x.s
	if !x.BrokerRestore || s.restored || !s.held() && s.b != mailbox.Completed {
		return
	}
	n := s
	n.b, n.lease, n.restored, n.durable, n.link = mailbox.Queued, 0, true, false, 0
	n.net = [maxMessages]message{}
	if x.UnknownOwner {
		n = n.on(mailbox.OnRestore, 0)
	} else {
		n.deliveries = 0
	}
	x.fault("broker restored from a backup", n)
}
