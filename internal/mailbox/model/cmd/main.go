// Command cmd explores the mailbox's state table and prints what it found: nothing wrong with all rules, and the
// shortest way to something wrong with each rule taken out. It is `make model`.
package main

import (
	"flag"
	"fmt"
	"os"

	"cowork.example.com/broker/internal/mailbox/model"
)

func main() {
	faults := flag.Int("faults", 2, "how many faults may happen")
	flag.Parse()
	if !run(*faults) {
		os.Exit(1)
	}
}

func run(faults int) bool {
	ok := true
	for _, w := range model.Worlds(faults) {
		r := model.Explore(model.Full(), w)
		r.Print(os.Stdout, "all rules; "+w.String())
		ok = ok && r.Safe()
	}
	for _, a := range model.Ablations() {
		rules := model.Full()
		a.Remove(&rules)
		if r, w, found := model.Needed(rules, faults); found {
			r.Print(os.Stdout, "without "+a.Name+"; "+w.String())
		} else {
			fmt.Println("without", a.Name, "nothing was found: the model is blind to this rule")
			ok = false
		}
	}
	return ok
}
