package surface

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"sync"
	"time"

	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

// Options say where a surface keeps itself.
type Options struct {
	Dir     string // profiles; made 0700
	Secrets Secrets
	HTTP    *http.Client     // nil: a plain one; it should have no timeout of its own, since streams are long
	Now     func() time.Time // nil: time.Now
}

func (o Options) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}

// Surface is one linked surface. All methods are safe for concurrent use, by several processes too.
type Surface struct {
	opts    Options
	dir     folder
	pairing proof.PairingID
	id      proof.SurfaceID
	keys    *seal.Surface
	dsig    proof.SigKey
	api     *api

	mu      sync.Mutex
	token   string
	expires time.Time
	epochs  map[proof.EpochID]*seal.EpochKeys
}

// Open opens a linked surface; ErrNotLinked when there is none.
func Open(ctx context.Context, o Options, pairing string) (*Surface, error) {
	id, err := proof.ParsePairingID(pairing)
	if err != nil {
		return nil, ErrNotLinked
	}
	p, err := folder(o.Dir).read(id)
	if err != nil {
		return nil, err
	}
	raw, ok, err := o.Secrets.Get(ctx, keysName(id))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, ErrNotLinked
	}
	keys, err := seal.LoadSurface(raw)
	if err != nil {
		return nil, err
	}
	return newSurface(o, p, keys)
}

func newSurface(o Options, p *profile, keys *seal.Surface) (*Surface, error) {
	a, err := newAPI(p.Broker, o.HTTP)
	if err != nil {
		return nil, err
	}
	return &Surface{
		opts: o, dir: folder(o.Dir), pairing: p.Pairing, id: p.Surface, keys: keys, dsig: p.Dsig, api: a,
		epochs: map[proof.EpochID]*seal.EpochKeys{},
	}, nil
}

// Info returns who this surface is.
func (s *Surface) Info() (Info, error) {
	p, err := s.dir.read(s.pairing)
	if err != nil {
		return Info{}, err
	}
	return p.info(), nil
}

// State asks the broker what it knows of the desktop. Whether the desktop is there, only its beats say.
func (s *Surface) State(ctx context.Context) (wire.PairingState, error) {
	var st wire.PairingState
	return st, s.call(ctx, http.MethodGet, at(wire.PathPairing, s.pairing.String()), 0, nil, &st)
}

// call is one exchange under this surface's token. A token that has just ended is replaced once.
func (s *Surface) call(ctx context.Context, method, path string, wait time.Duration, in, out any) error {
	for attempt := 0; ; attempt++ {
		token, err := s.signIn(ctx)
		if err != nil {
			return err
		}
		err = s.api.call(ctx, method, path, token, wait, in, out)
		if attempt > 0 || !IsCode(err, wire.CodeUnauthorized) {
			return err
		}
		s.forgetToken(token)
	}
}

func (s *Surface) forgetToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == token {
		s.token = ""
	}
}

// tokenMargin is how long before its end a token is replaced.
const tokenMargin = time.Minute

// signIn returns a token, by a signed nonce when the last one is about to end (pairing-protocol.md section 2).
func (s *Surface) signIn(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token != "" && s.opts.now().Before(s.expires) {
		return s.token, nil
	}
	p, err := s.dir.read(s.pairing)
	if err != nil {
		return "", err
	}
	var nonce wire.Nonce
	who := wire.AuthNonceRequest{Pairing: s.pairing.String(), Surface: s.id.String()}
	if err := s.api.call(ctx, http.MethodPost, wire.PathAuthNonce, "", 0, who, &nonce); err != nil {
		return "", err
	}
	if string(nonce.BrokerKey) != string(p.Key[:]) {
		return "", &wire.Problem{Code: wire.CodeForbidden, Title: "this is not the broker that the surface was linked through"}
	}
	auth := proof.SurfaceAuth{
		Origin: p.Origin, Broker: p.Key, Pairing: s.pairing, Surface: s.id, Nonce: nonce.Nonce,
		Time: nonce.Time, // the broker's: the nonce makes it fresh, and this surface's clock may be off
	}
	req := wire.AuthTokenRequest{
		Pairing: who.Pairing, Surface: who.Surface, Nonce: auth.Nonce, Time: auth.Time, Signature: auth.Sign(s.signer()),
	}
	var token wire.AuthToken
	if err := s.api.call(ctx, http.MethodPost, wire.PathAuthToken, "", 0, req, &token); err != nil {
		return "", err
	}
	life := time.UnixMilli(token.Expires).Sub(time.UnixMilli(nonce.Time)) - tokenMargin
	s.token, s.expires = token.Token, s.opts.now().Add(life)
	return s.token, nil
}

func (s *Surface) signer() ed25519.PrivateKey { return s.keys.Signer() }

// Forget erases this surface's keys and profile. It does not tell anyone: Revoke does.
func (s *Surface) Forget(ctx context.Context) error {
	if err := s.opts.Secrets.Delete(ctx, keysName(s.pairing)); err != nil {
		return err
	}
	return s.dir.remove(s.pairing)
}
