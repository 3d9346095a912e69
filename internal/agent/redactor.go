package agent

import (
	"os"

	"cowork.example.com/broker/internal/redact"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/wire"
)

// redactorFor makes the remote-safe view that a policy asks for. Paths inside a project are named after it.
func redactorFor(policy pairing.Policy, projects []wire.ExecProject) *redact.Redactor {
	home, _ := os.UserHomeDir() // without one there is none to recognise
	o := redact.Options{
		ExposePaths: policy.ExposeLocalPaths, ExposeArtifacts: policy.ExposeArtifactBodies,
		ExposeMCP: policy.ExposeLocalMcpDetails, Home: home, Projects: map[string]string{},
	}
	for _, p := range projects {
		o.Projects[p.Dir] = p.Name
	}
	return redact.New(o)
}
