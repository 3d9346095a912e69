// Command bench measures what the broker and the agent cost on this machine: one subcommand for each figure that the
// project promises, each beside a baseline of the same run. It is no test and passes no judgement by its exit code;
// docs/benchmarks.md says what it printed where, and how to read it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// bench is what the subcommands share.
type bench struct {
	samples  int
	taps     int
	desktops int
	agents   int
	settle   int
	profile  string // folder for profiles; empty: none
	bin      string // folder with the built broker
}

// benches are the subcommands, in the order of `all`.
var benches = []struct {
	name, help string
	run        func(*bench, context.Context) ([]figure, error)
}{
	{"tap", "from the post of a sealed prompt to the call of the executor", (*bench).tap},
	{"store", "durable commands a second, the store alone, 200 desktops", (*bench).durableStore},
	{"durable", "durable commands a second, the whole broker, 200 desktops on tunnels", (*bench).durableBroker},
	{"restart", "until every agent is back after a restart of the broker", (*bench).restart},
	{"idle", "memory and goroutines of an idle desktop at the broker", (*bench).idle},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	name := "all"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	if name == bareRole {
		return serveBareLinks(ctx)
	}
	b := &bench{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Usage = func() { usage(flags) }
	flags.IntVar(&b.samples, "samples", 5, "samples of each figure; their median is the figure")
	flags.IntVar(&b.taps, "taps", 100, "tap: prompts in a sample; a surface may send 120 at once")
	flags.IntVar(&b.desktops, "desktops", 5000, "idle: connected desktops")
	flags.IntVar(&b.settle, "settle", 45, "idle: seconds of quiet before memory is read")
	flags.IntVar(&b.agents, "agents", 1000, "restart: agents")
	flags.StringVar(&b.profile, "profile", "", "write the broker's profiles into this folder")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return b.all(ctx, name)
}

func usage(flags *flag.FlagSet) {
	w := flags.Output()
	fmt.Fprintln(w, "bench [SUBCOMMAND] [flags]; without a subcommand, or with `all`, every one of these runs:")
	for _, e := range benches {
		fmt.Fprintf(w, "  %-8s %s\n", e.name, e.help)
	}
	flags.PrintDefaults()
}

// all runs the benches of a name, each with the machine's state before it.
func (b *bench) all(ctx context.Context, name string) error {
	found := false
	for _, e := range benches {
		if name != "all" && name != e.name {
			continue
		}
		if !found {
			bin, err := buildBroker(ctx)
			if err != nil {
				return err
			}
			defer os.RemoveAll(bin) //nolint:errcheck // scratch
			b.bin, found = bin, true
		}
		if err := b.one(ctx, e.name, e.help, e.run); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	if !found {
		return fmt.Errorf("no such bench: %s", name)
	}
	return nil
}

func (b *bench) one(ctx context.Context, name, help string, run func(*bench, context.Context) ([]figure, error)) error {
	m, err := lookAround()
	if err != nil {
		return err
	}
	fmt.Printf("### %s: %s\n\n%s\n\n", name, help, m)
	figures, err := run(b, ctx)
	if err != nil {
		return err
	}
	fmt.Println(table(figures))
	fmt.Printf("load after it: %s\n\n", load())
	return nil
}
