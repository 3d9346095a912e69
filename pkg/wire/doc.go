// Package wire holds what crosses a wire as JSON: path constants, the surface and operator API, the frames
// of the tunnel, the payloads inside sealed envelopes, and the audit line. It has no logic beyond the strict
// encoding of bytes; what signs and verifies is in pkg/proof, what seals and opens in pkg/seal.
//
// Ids are strings here: a pairing or surface id is the base64url form of 16 bytes (proof.PairingID,
// proof.SurfaceID), a command id is given by the broker and starts with "cmd_".
package wire
