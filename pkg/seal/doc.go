// Package seal is the half of the protocol that needs a secret: the keys of desktops and surfaces, the secrets and
// digits of a linking, sealed commands, results, grants and epochs of events. What can be checked without a secret is
// in pkg/proof. It does no I/O; `now` is always a parameter; what must last is exported as bytes for a keystore.
//
// The broker's binary does not contain this package.
package seal
