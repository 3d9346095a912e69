// Package opencode runs commands on OpenCode: a client of its classic HTTP and SSE API,
// and the supervisor that starts, adopts and ends it.
//
// [Executor] is what the agent uses. Its Run owns two things: the runtime (own, isolated
// or attached, see [Options]) and the stream of events, which it turns into
// wire.ExecEvent. Whatever the stream may have missed (a cut connection, a restart of
// either program) is found again by asking: after every connect the pending requests, the
// session states and the messages are read, and the differences become events.
//
// What is not in OpenCode's documentation but decides how this package is written:
//
//   - prompt_async answers 204 before it has stored the message, and also when it will
//     fail; a prompt counts when its message can be read back.
//   - abort answers true for idle and unknown sessions, and leaves a request that was
//     waiting in the list of pending ones for ever.
//   - idle is not one-to-one with turns; the messages say how a turn ended.
//   - a repeated message id appends to the message: look first, post only if absent.
//   - shell children are in sessions of their own and survive OpenCode.
package opencode
