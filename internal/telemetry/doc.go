// Package telemetry is what a program says about itself: its log, its metrics,
// its build, and the time by which it dates things.
package telemetry
