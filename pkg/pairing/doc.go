// Package pairing has the nouns and rules of who may talk to whom: pairings, surfaces, enrolment codes, linking
// sessions as the broker sees them, and the desktop's policy. It does no I/O: what lasts is behind the Store
// interfaces, `now` is always a parameter, and every change is one method together with its audit lines, so that
// both are one transaction.
//
// Everything here denies by default: a zero Policy, a zero Scope and a zero State allow nothing.
package pairing
