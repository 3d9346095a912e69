// Package mailbox is the meeting point of surfaces, the broker's nodes and desktops: it holds what is said. A command
// waits here until the desktop's newest link claims it, and leaves with exactly one terminal state; events wait here
// until every stream has read them.
//
// The rules stand in one table (table.go) and one pure function, Next; docs/adr/0005-mailbox-model.md says how the
// table was explored. The package does no I/O: rows live behind Store, wake-ups behind Waker, and the time is always
// a parameter. A wake-up is a hint; the rows are the truth.
//
// All methods of Service are safe for concurrent use. Times are kept to the millisecond.
package mailbox
