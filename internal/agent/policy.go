package agent

import (
	"context"
	"encoding/json"

	"cowork.example.com/broker/internal/audit"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/wire"
)

// reasonElevated marks the second line of a policy that lets a surface decide without a person at the desktop.
const reasonElevated = "remote_allowed"

// PolicyView is a pairing's policy as the owner is shown it.
type PolicyView struct {
	Pairing string         `json:"pairing"`
	Version int            `json:"version"`
	Policy  pairing.Policy `json:"policy"`            // what holds
	Problem string         `json:"problem,omitempty"` // why the stored document counts as no
}

// policyView reads what holds now, and why when the document is malformed.
func (p *pairingRun) policyView(ctx context.Context) (PolicyView, error) {
	row, err := p.journal.Pairing(ctx, p.id)
	if err != nil {
		return PolicyView{}, err
	}
	v := PolicyView{Pairing: p.id.String(), Version: row.PolicyVersion}
	if v.Policy, err = pairing.ParsePolicy(row.Policy); err != nil {
		v.Problem = err.Error()
	}
	return v, nil
}

// setPolicy replaces the policy. A document that does not parse is refused and changes nothing. Letting a surface
// decide leaves a line of its own.
func (p *pairingRun) setPolicy(ctx context.Context, document []byte) (PolicyView, error) {
	next, err := pairing.ParsePolicy(document)
	if err != nil {
		return PolicyView{}, &ControlError{Code: wire.CodeMalformed, Message: err.Error()}
	}
	old, err := p.policyView(ctx)
	if err != nil {
		return PolicyView{}, err
	}
	stored, err := json.Marshal(next)
	if err != nil {
		return PolicyView{}, err
	}
	lines, err := p.policyLines(old.Policy, next)
	if err != nil {
		return PolicyView{}, err
	}
	if err := p.record(lines, journal.SetPolicy(p.id, stored)); err != nil {
		return PolicyView{}, err
	}
	if !p.isRunning() {
		return p.policyView(ctx)
	}
	if err := p.pub.SurfacesChanged(ctx); err != nil { // what is shown of open requests may have changed
		p.log.Info("open requests are published anew at the next link", "error", err)
	}
	return p.policyView(ctx)
}

// policyLines describe a change of policy: what changed, and apart from it that a surface may decide from now on.
func (p *pairingRun) policyLines(old, next pairing.Policy) ([]journal.Line, error) {
	diff, err := policyDiff(old, next)
	if err != nil {
		return nil, err
	}
	line := p.byDesktop(audit.PolicyChanged, audit.Success, "")
	line.Diff = diff
	lines := []journal.Line{line}
	if next.Elevates(old) {
		lines = append(lines, p.byDesktop(audit.PolicyChanged, audit.Success, reasonElevated))
	}
	return lines, nil
}

// policyDiff is the fields that changed, each with its value before and after.
func policyDiff(old, next pairing.Policy) (json.RawMessage, error) {
	before, err := fieldsOf(old)
	if err != nil {
		return nil, err
	}
	after, err := fieldsOf(next)
	if err != nil {
		return nil, err
	}
	diff := map[string][2]any{}
	for name, v := range after {
		if before[name] != v {
			diff[name] = [2]any{before[name], v}
		}
	}
	return json.Marshal(diff)
}

func fieldsOf(p pairing.Policy) (map[string]any, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	fields := map[string]any{}
	return fields, json.Unmarshal(raw, &fields)
}
