// Package agent is the composition root of the desktop: receive, verify, ask the policy, write to the journal, execute,
// redact, seal, send (docs/architecture.md). It dials its brokers and listens on nothing but a unix socket of its owner.
package agent
