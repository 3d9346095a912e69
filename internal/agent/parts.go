package agent

import "context"

// realParts are the identity, publisher and linker of a running agent.
func realParts(s Secrets) parts {
	return parts{
		identity:  func(ctx context.Context, d deps) (identityAPI, error) { return openIdentity(ctx, s, d.pairing.ID) },
		publisher: func(d deps, id identityAPI) publisherAPI { return newPublisher(d, id) },
		linker:    func(d deps, id identityAPI, pub publisherAPI) linkerAPI { return newLinker(d, id, pub) },
	}
}
