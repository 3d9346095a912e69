// Package surface is a surface of a pairing: it links, seals and signs commands, believes only signed results, and
// follows the desktop's sealed events. The surface program and every channel adapter use it (docs/protocol/seal.md).
//
// What a surface must not lose is kept in a folder: one profile a pairing, written durably before anything is sent,
// and its two private keys in a keystore.
package surface
