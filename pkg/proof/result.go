package proof

import "crypto/ed25519"

// MaxResult is the largest signed result in bytes; a page of history fits.
const MaxResult = 1 << 20

// MaxCommandID bounds the mailbox id in a result's header.
const MaxCommandID = 128

// maxState bounds the name of a state.
const maxState = 40

// ResultHeader is the readable part of a result: aad of the seal, and what the broker sees of it.
type ResultHeader struct {
	Pairing  PairingID
	Surface  SurfaceID
	Envelope Digest // hash of the command's envelope
	Command  string // the mailbox's id
	State    string // a terminal state
	Counter  uint64 // of the desktop's journal (section 6)
	Time     int64  // Unix ms, desktop's clock
}

// Encode returns the header's bytes.
func (h ResultHeader) Encode() []byte {
	var e Encoder
	e.Field(h.Pairing[:]).Field(h.Surface[:]).Field(h.Envelope[:]).Text(h.Command).Text(h.State)
	return e.Uint(h.Counter).Time(h.Time).Bytes()
}

func parseResultHeader(b []byte) (h ResultHeader, err error) {
	d := NewDecoder(b)
	d.Fill(h.Pairing[:])
	d.Fill(h.Surface[:])
	d.Fill(h.Envelope[:])
	h.Command, h.State = d.Text(MaxCommandID), d.Text(maxState)
	h.Counter, h.Time = d.Uint(), d.Time()
	d.check(token(h.Command) && token(h.State), "command id and state are tokens")
	return h, d.Done()
}

// token reports whether s is not empty and of A-Z a-z 0-9 . _ - only.
func token(s string) bool {
	for _, r := range s {
		if notLabel(r) || r == ' ' {
			return false
		}
	}
	return s != ""
}

// Result is a signed, sealed result taken apart.
type Result struct {
	Header ResultHeader
	Sealed []byte // enc ‖ ct
	header []byte
}

// HeaderBytes returns the header as signed: the aad.
func (r Result) HeaderBytes() []byte { return r.header }

// SignResult returns lp(header) ‖ lp(sealed) ‖ signature.
func SignResult(header, sealed []byte, dsig ed25519.PrivateKey) []byte {
	return sealedStatement(LabelResult, header, sealed, dsig)
}

// OpenResult verifies a result under dsig; what it seals stays sealed.
func OpenResult(dsig SigKey, signed []byte) (Result, error) {
	header, sealed, sig, err := splitSealed(signed, MaxResult)
	if err != nil {
		return Result{}, err
	}
	if err := dsig.Verify(sealedInput(LabelResult, header, sealed), sig); err != nil {
		return Result{}, err
	}
	h, err := parseResultHeader(header)
	if err != nil {
		return Result{}, err
	}
	return Result{Header: h, Sealed: sealed, header: header}, nil
}
