package seal

import (
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/binary"
	"errors"
	"fmt"

	"cowork.example.com/broker/pkg/proof"
)

// ErrOpen: sealed bytes do not open: other key, other header, or altered. Why is nobody's business.
var ErrOpen = errors.New("sealed bytes do not open")

// Suite 1 (RFC 9180): ids 0x0020, 0x0001, 0x0002. Base mode; who sealed is shown by the signature around it.
var (
	suiteKEM  = hpke.DHKEM(ecdh.X25519())
	suiteKDF  = hpke.HKDFSHA256()
	suiteAEAD = hpke.AES256GCM()
)

// sealTo returns enc ‖ ct. A key of small order fails.
func sealTo(to proof.KemKey, info, aad, plaintext []byte) ([]byte, error) {
	pub, err := suiteKEM.NewPublicKey(to[:])
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	enc, sender, err := hpke.NewSender(pub, suiteKDF, suiteAEAD, info)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	ct, err := sender.Seal(aad, plaintext)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	return append(enc, ct...), nil
}

// openWith opens enc ‖ ct.
func openWith(key hpke.PrivateKey, info, aad, sealed []byte) ([]byte, error) {
	if len(sealed) < proof.EncSize+proof.TagSize {
		return nil, ErrOpen
	}
	r, err := hpke.NewRecipient(sealed[:proof.EncSize], key, suiteKDF, suiteAEAD, info)
	if err != nil {
		return nil, ErrOpen
	}
	plaintext, err := r.Open(aad, sealed[proof.EncSize:])
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}

// pad returns head ‖ length ‖ payload ‖ zeros, a multiple of proof.PadBlock.
func pad(head, payload []byte) []byte {
	n := len(head) + proof.LengthSize + len(payload)
	out := make([]byte, 0, (n+proof.PadBlock-1)/proof.PadBlock*proof.PadBlock)
	out = append(out, head...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(payload)))
	out = append(out, payload...)
	return out[:cap(out)]
}

// unpad is its inverse and takes exactly what pad gives.
func unpad(headSize int, padded []byte) (head, payload []byte, err error) {
	start := headSize + proof.LengthSize
	if len(padded)%proof.PadBlock != 0 || len(padded) < start {
		return nil, nil, fmt.Errorf("%w: not padded", proof.ErrForm)
	}
	n := int64(binary.BigEndian.Uint32(padded[headSize:]))
	if n > int64(len(padded)-start) || len(padded)-start-int(n) >= proof.PadBlock {
		return nil, nil, fmt.Errorf("%w: padded to another length than it states", proof.ErrForm)
	}
	end := start + int(n)
	for _, b := range padded[end:] {
		if b != 0 {
			return nil, nil, fmt.Errorf("%w: padding is zeros", proof.ErrForm)
		}
	}
	return padded[:headSize], padded[start:end:end], nil
}

// info builds an HPKE info: a label and fixed-size parts.
func info(label string, parts ...[]byte) []byte {
	e := proof.Label(label)
	for _, p := range parts {
		e.Raw(p)
	}
	return e.Bytes()
}
