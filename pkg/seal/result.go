package seal

import (
	"fmt"

	"cowork.example.com/broker/pkg/proof"
)

// SealResult seals a result's body to a surface's Skem under its header, and signs both. The caller stores the bytes
// and repeats them; they are never sealed again.
func (d *Desktop) SealResult(skem proof.KemKey, h proof.ResultHeader, body []byte) ([]byte, error) {
	header := h.Encode()
	sealed, err := sealTo(skem, resultInfo(h), header, pad(nil, body))
	if err != nil {
		return nil, err
	}
	signed := proof.SignResult(header, sealed, d.sign)
	if len(signed) > proof.MaxResult {
		return nil, fmt.Errorf("%w: a result has at most %d bytes", proof.ErrForm, proof.MaxResult)
	}
	return signed, nil
}

// OpenResult verifies a result under the desktop's key and opens it. The caller holds Header.Envelope against what it
// sent: a result that names none of that is dropped.
func (s *Surface) OpenResult(dsig proof.SigKey, signed []byte) (proof.ResultHeader, []byte, error) {
	r, err := proof.OpenResult(dsig, signed)
	if err != nil {
		return proof.ResultHeader{}, nil, err
	}
	if r.Header.Pairing != proof.PairingOf(dsig) || r.Header.Surface != s.ID(r.Header.Pairing) {
		return proof.ResultHeader{}, nil, fmt.Errorf("%w: the result is for another surface", proof.ErrRefused)
	}
	padded, err := openWith(s.kem, resultInfo(r.Header), r.HeaderBytes(), r.Sealed)
	if err != nil {
		return proof.ResultHeader{}, nil, err
	}
	_, body, err := unpad(0, padded)
	if err != nil {
		return proof.ResultHeader{}, nil, err
	}
	return r.Header, body, nil
}

func resultInfo(h proof.ResultHeader) []byte {
	return info(proof.LabelResult, h.Pairing[:], h.Surface[:])
}

// SealGrant signs a grant and seals it to the surface's Skem: for the broker the signed grant, for the surface the
// sealed one. The transcript is the aad.
func (d *Desktop) SealGrant(g proof.Grant) (signed, sealed []byte, err error) {
	signed = g.Sign(d.sign)
	sealed, err = sealTo(g.Skem, grantInfo(g.Pairing, g.Surface), g.Transcript[:], signed)
	return signed, sealed, err
}

// OpenGrant opens and verifies a grant: under dsig, for this surface's own keys, and of the linking whose SHA-256(T)
// is transcript.
func (s *Surface) OpenGrant(dsig proof.SigKey, transcript proof.Digest, sealed []byte) (proof.Grant, []byte, error) {
	pairing := proof.PairingOf(dsig)
	signed, err := openWith(s.kem, grantInfo(pairing, s.ID(pairing)), transcript[:], sealed)
	if err != nil {
		return proof.Grant{}, nil, err
	}
	g, err := proof.OpenGrant(dsig, signed)
	if err != nil {
		return proof.Grant{}, nil, err
	}
	if g.Surface != s.ID(pairing) || !g.Transcript.Equal(transcript) {
		return proof.Grant{}, nil, fmt.Errorf("%w: the grant is of another linking", proof.ErrRefused)
	}
	return g, signed, nil
}

func grantInfo(p proof.PairingID, s proof.SurfaceID) []byte {
	return info(proof.LabelGrant, p[:], s[:])
}
