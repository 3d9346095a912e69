package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"cowork.example.com/broker/internal/broker"
	"cowork.example.com/broker/internal/journal"
	"cowork.example.com/broker/pkg/pairing"
	"cowork.example.com/broker/pkg/proof"
	"cowork.example.com/broker/pkg/seal"
	"cowork.example.com/broker/pkg/wire"
)

// runningBroker runs a broker until the test ends.
func runningBroker(t *testing.T) *broker.Started {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	up, ended := make(chan *broker.Started, 1), make(chan error, 1)
	cfg := broker.Config{
		Listen: []string{"127.0.0.1:0"}, StateDir: t.TempDir(), Version: "test", Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		Started: func(_ context.Context, s *broker.Started) { up <- s },
	}
	go func() { ended <- broker.Run(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("broker: %v", err)
		}
	})
	select {
	case s := <-up:
		return s
	case <-time.After(patience):
		t.Fatal("the broker did not start")
		return nil
	}
}

// crashing is a keystore whose nth change fails, as a crash just before it would.
type crashing struct {
	*memorySecrets
	left int
}

var errCrash = errors.New("crash")

func (c *crashing) Set(ctx context.Context, name string, value []byte) error {
	if c.left--; c.left < 0 {
		return errCrash
	}
	return c.memorySecrets.Set(ctx, name, value)
}

func (c *crashing) Delete(ctx context.Context, name string) error {
	if c.left--; c.left < 0 {
		return errCrash
	}
	return c.memorySecrets.Delete(ctx, name)
}

// counting counts the posts of a path and may lose their answers.
type counting struct {
	mu    sync.Mutex
	posts int
	lose  int
}

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.URL.Path != wire.PathEnrol || err != nil {
		return res, err
	}
	c.posts++
	if c.lose > 0 {
		c.lose--
		res.Body.Close()
		return nil, errCrash
	}
	return res, nil
}

func codeOf(t *testing.T, b *broker.Started) pairing.Code {
	t.Helper()
	issued, err := b.IssueCode(t.Context(), wire.CodeIssue{})
	if err != nil {
		t.Fatal(err)
	}
	code, err := pairing.ParseCode(issued.Text)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// enrolment is one that works, before a test bends it.
func enrolment(t *testing.T, b *broker.Started, secrets Secrets) Enrolment {
	t.Helper()
	j, err := OpenJournal(t.Context(), t.TempDir(), "machine", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return Enrolment{Broker: b.Addresses[0], Code: codeOf(t, b), Host: "my desk/1", Executor: ExecutorEcho, Secrets: secrets, Journal: j, Now: time.Now}
}

func pairings(t *testing.T, j *journal.Journal) []journal.Pairing {
	t.Helper()
	all, err := j.Pairings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Whatever step the agent dies before, the same call again goes on, and there is one pairing in the end.
func TestEnrolmentSurvivesCrashes(t *testing.T) {
	b := runningBroker(t)
	for crashBefore := range 5 {
		secrets := &crashing{&memorySecrets{values: map[string][]byte{}}, crashBefore}
		e := enrolment(t, b, secrets)
		row, err := Enrol(t.Context(), e)
		if died := crashBefore < 4; (err != nil) != died || died && !errors.Is(err, errCrash) {
			t.Fatalf("crash before change %d: %v", crashBefore, err)
		}
		secrets.left = 100
		again, err := Enrol(t.Context(), e)
		if crashBefore == 4 {
			if err == nil {
				t.Error("a used code was used again by other keys")
			}
			again, err = row, nil
		}
		if err != nil {
			t.Fatalf("crash before change %d, then again: %v", crashBefore, err)
		}
		all := pairings(t, e.Journal)
		if len(all) != 1 || all[0].ID != again.ID || again.Host != proof.CleanLabel("my desk/1") {
			t.Fatalf("pairings %+v, enrolled %+v", all, again)
		}
		if !row.ID.IsZero() && row.ID != again.ID {
			t.Errorf("crash before change %d: two identities", crashBefore)
		}
		id, err := openIdentity(t.Context(), secrets, again.ID)
		if err != nil {
			t.Fatal(err)
		}
		meta := e.Journal.Meta()
		if m, n, ok, err := id.Mirror(t.Context()); err != nil || !ok || m != meta.ID || n != meta.Counter {
			t.Errorf("the mirror is %v %d %v %v", m, n, ok, err)
		}
		if _, left, _ := secrets.Get(t.Context(), pendingName); left && crashBefore < 4 {
			t.Error("the enrolment is still pending")
		}
	}
}

func TestLostReplyOfEnrolment(t *testing.T) {
	b := runningBroker(t)
	secrets := &memorySecrets{values: map[string][]byte{}}
	e := enrolment(t, b, secrets)
	net := &counting{lose: 1}
	e.HTTP = &http.Client{Transport: net}
	if _, err := Enrol(t.Context(), e); err == nil {
		t.Fatal("the answer was lost")
	}
	pendingKeys := pending{}
	if ok, err := load(t.Context(), secrets, pendingName, &pendingKeys); !ok || err != nil {
		t.Fatal(err)
	}
	keys, err := seal.LoadDesktop(pendingKeys.Keys)
	if err != nil {
		t.Fatal(err)
	}
	row, err := Enrol(t.Context(), e)
	if err != nil || row.ID != keys.Pairing() {
		t.Errorf("again: %s %v, want %s", row.ID, err, keys.Pairing())
	}
}

func TestEnrolmentIsRefused(t *testing.T) {
	b, other := runningBroker(t), runningBroker(t)
	for name, c := range map[string]struct {
		bend  func(*Enrolment)
		want  func(error) bool
		posts int
	}{
		"code of another broker": {func(e *Enrolment) { e.Code = codeOf(t, other) }, func(err error) bool { return errors.Is(err, ErrWrongBroker) }, 0},
		"used code": {func(e *Enrolment) {
			used := enrolment(t, b, &memorySecrets{values: map[string][]byte{}})
			used.Code = e.Code
			if _, err := Enrol(t.Context(), used); err != nil {
				t.Error(err)
			}
		}, func(err error) bool { return problemCode(err) == wire.CodeBadCode }, 1},
		"clock an hour ahead": {func(e *Enrolment) { e.Now = func() time.Time { return time.Now().Add(time.Hour) } }, namesBothClocks, 0},
		"clock an hour back":  {func(e *Enrolment) { e.Now = func() time.Time { return time.Now().Add(-time.Hour) } }, namesBothClocks, 0},
		"plain http":          {func(e *Enrolment) { e.Broker = "http://broker.example.com" }, func(err error) bool { return strings.Contains(err.Error(), "https://") }, 0},
		"no address":          {func(e *Enrolment) { e.Broker = "broker" }, func(err error) bool { return strings.Contains(err.Error(), "web address") }, 0},
	} {
		e := enrolment(t, b, &memorySecrets{values: map[string][]byte{}})
		c.bend(&e)
		net := &counting{}
		e.HTTP = &http.Client{Transport: net}
		_, err := Enrol(t.Context(), e)
		if err == nil || !c.want(err) || net.posts != c.posts {
			t.Errorf("%s: %v after %d posts", name, err, net.posts)
			continue
		}
		if strings.Contains(err.Error(), string(e.Code.Letters())) {
			t.Errorf("%s: the error tells the code", name)
		}
		if len(pairings(t, e.Journal)) != 0 {
			t.Errorf("%s: something was journalled", name)
		}
	}
}

func problemCode(err error) string {
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		return p.Code
	}
	return ""
}

func namesBothClocks(err error) bool {
	return problemCode(err) == wire.CodeClockSkew && strings.Contains(err.Error(), "this desktop says") && strings.Contains(err.Error(), "the broker says")
}

// A server that is no broker, or sends the agent elsewhere, gets nothing but the first question.
func TestEnrolmentElsewhere(t *testing.T) {
	b := runningBroker(t)
	for name, answer := range map[string]http.HandlerFunc{
		"a web site": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, b.Addresses[0]+r.URL.Path, http.StatusTemporaryRedirect)
		},
		"another key": func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(wire.BrokerInfo{Key: make([]byte, 32), ProtocolMin: 1, ProtocolMax: 1, Time: time.Now().UnixMilli()})
		},
		"too much": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxBrokerBody+1)) },
	} {
		posts := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				posts++
			}
			answer(w, r)
		}))
		e := enrolment(t, b, &memorySecrets{values: map[string][]byte{}})
		e.Broker = s.URL
		if _, err := Enrol(t.Context(), e); err == nil || posts != 0 {
			t.Errorf("%s: %v, %d posts", name, err, posts)
		}
		s.Close()
	}
}

func TestProtocolVersions(t *testing.T) {
	code := pairing.NewCode(proof.SigKey{1})
	for name, info := range map[string]wire.BrokerInfo{
		"upgrade the broker":    {ProtocolMin: 0, ProtocolMax: wire.ProtocolMin - 1},
		"upgrade desktop-agent": {ProtocolMin: wire.ProtocolMax + 1, ProtocolMax: wire.ProtocolMax + 2},
	} {
		key := proof.SigKey{1}
		info.Key, info.Time = key[:], time.Now().UnixMilli()
		if err := checkBroker(Enrolment{Code: code, Now: time.Now}, info); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The keystore is written first: a rotation that cannot be kept has not happened.
func TestKeysAreKeptBeforeTheyAreUsed(t *testing.T) {
	keys, err := seal.NewDesktop(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	secrets := &crashing{&memorySecrets{values: map[string][]byte{}}, 1}
	if err := secrets.Set(t.Context(), keysName(keys.Pairing()), keys.Export()); err != nil {
		t.Fatal(err)
	}
	id, err := openIdentity(t.Context(), secrets, keys.Pairing())
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(proof.BundleEvery + time.Minute)
	first := id.Keys().Bundle()
	if rotated, err := id.Rotate(t.Context(), later); rotated || !errors.Is(err, errCrash) || string(id.Keys().Bundle()) != string(first) {
		t.Fatalf("a rotation that was not kept: %v %v", rotated, err)
	}
	if err := id.ReplaceAll(t.Context(), later); !errors.Is(err, errCrash) || string(id.Keys().Bundle()) != string(first) {
		t.Fatalf("a recovery that was not kept: %v", err)
	}
	secrets.left = 100
	if rotated, err := id.Rotate(t.Context(), later); !rotated || err != nil {
		t.Fatalf("the next try: %v %v", rotated, err)
	}
	if rotated, err := id.Rotate(t.Context(), later); rotated || err != nil {
		t.Errorf("nothing is due: %v %v", rotated, err)
	}
	again, err := openIdentity(t.Context(), secrets, keys.Pairing())
	if err != nil || string(again.Keys().Bundle()) != string(id.Keys().Bundle()) {
		t.Errorf("the keystore has other keys: %v", err)
	}
	if err := id.ReplaceAll(t.Context(), later.Add(time.Minute)); err != nil || string(id.Keys().Bundle()) == string(again.Keys().Bundle()) {
		t.Errorf("recover: %v", err)
	}
}

func TestForeignKeystore(t *testing.T) {
	mine, err := seal.NewDesktop(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := seal.NewDesktop(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string][]byte{"none": nil, "another's": other.Export(), "damaged": []byte("x")} {
		secrets := &memorySecrets{values: map[string][]byte{}}
		if value != nil {
			secrets.values[keysName(mine.Pairing())] = value
		}
		if _, err := openIdentity(t.Context(), secrets, mine.Pairing()); err == nil {
			t.Errorf("%s keys were opened", name)
		}
		secrets.values[mirrorName(mine.Pairing())] = []byte("x")
		id := &identity{secrets: secrets}
		id.keys.Store(mine)
		if _, _, _, err := id.Mirror(t.Context()); err == nil || strings.Contains(err.Error(), "\"x\"") {
			t.Errorf("a damaged mirror: %v", err)
		}
	}
}
