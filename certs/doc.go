// Package certs is TLS for the broker: a development authority with a leaf
// under it, and a loader that takes a renewed certificate without a restart.
// "Certificate" is only ever TLS here; what a desktop signs for a surface is a
// grant.
package certs
