// Package redact makes values fit to leave the desktop: local paths, details
// of MCP processes, artifact bodies and secrets are replaced by markers unless
// the policy exposes them. Its functions are pure, run in linear time and
// bound what they return, so they may stand in the way of every event, result
// and error text.
package redact
