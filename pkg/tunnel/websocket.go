package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"nhooyr.io/websocket"
)

// This file is the only one that knows the WebSocket library (ADR 0002). It
// does not use the library's NetConn: that one waits up to ten seconds in Close,
// hides the peer's close code and pays two contexts and two timers a link.

// Close codes of SPEC section 7.
const (
	codeGoingAway = websocket.StatusGoingAway
	codeRestart   = websocket.StatusServiceRestart
	codeReason    = websocket.StatusCode(4000)
	codeReplaced  = websocket.StatusCode(4001)
	codeConflict  = websocket.StatusCode(4002)
)

// conn is the bytes of one WebSocket's binary messages, for yamux.
type conn struct {
	ws     *websocket.Conn
	bottom net.Conn  // the transport below TLS: closing it frees every reader and writer at once
	rest   io.Reader // of the message being read; only yamux's receive loop touches it

	rx, tx atomic.Int64 // bytes of yamux's frames
	peer   atomic.Pointer[CloseError]
	closed sync.Once

	park    *parker       // nil: Read waits inside the library
	ahead   *bufio.Reader // what the library has read ahead
	leaving bool          // bye reads too: hands off ahead
	mu      sync.Mutex    // guards leaving, and with it ahead
}

func newConn(ws *websocket.Conn, bottom net.Conn) *conn {
	ws.SetReadLimit(maxMessage)
	return &conn{ws: ws, bottom: bottom}
}

// Read returns what is left of the present message, or waits for the next. The
// context is never cancelled, because the library closes the connection in the
// middle of a message when it is; close and abort end a blocked Read.
func (c *conn) Read(p []byte) (int, error) {
	for {
		if c.rest == nil {
			c.wait()
			typ, r, err := c.ws.Reader(context.Background())
			if err != nil {
				return 0, c.readError(err)
			}
			if typ != websocket.MessageBinary {
				c.bye(websocket.StatusUnsupportedData, "binary_only")
				return 0, errors.New("tunnel: the peer sent a text message")
			}
			c.rest = r
		}
		n, err := c.rest.Read(p)
		if err == io.EOF {
			c.rest, err = nil, nil
		}
		c.rx.Add(int64(n))
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// wait waits for the next message, where that can be done with little stack.
func (c *conn) wait() {
	if c.park == nil {
		return
	}
	c.mu.Lock()
	empty := !c.leaving && c.ahead.Buffered() == 0
	c.mu.Unlock()
	if empty {
		c.park.wait()
	}
}

// readError keeps the peer's close frame, if that is what ended the WebSocket.
func (c *conn) readError(err error) error {
	var ce websocket.CloseError
	if errors.As(err, &ce) {
		c.peer.CompareAndSwap(nil, closeFrom(ce.Code, ce.Reason))
		return io.EOF
	}
	return err
}

// Write sends p as one message.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.ws.Write(context.Background(), websocket.MessageBinary, p); err != nil {
		return 0, err
	}
	c.tx.Add(int64(len(p)))
	return len(p), nil
}

// ping sends a WebSocket ping; some proxies count only those as life.
func (c *conn) ping(ctx context.Context) error { return c.ws.Ping(ctx) }

// bye sends a close frame, waits closeGrace for the answer, and aborts.
func (c *conn) bye(code websocket.StatusCode, reason string) {
	c.mu.Lock()
	c.leaving = true
	c.mu.Unlock()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_ = c.ws.Close(code, reason)
	}()
	t := time.NewTimer(closeGrace)
	defer t.Stop()
	select {
	case <-answered:
	case <-t.C:
	}
	_ = c.Close()
}

// Close cuts the transport without a close frame and returns at once. It must be quick: while a
// yamux session closes its connection, blocked readers of its streams spin.
func (c *conn) Close() error {
	c.closed.Do(func() {
		_ = c.bottom.Close()
		_ = c.ws.CloseNow()
	})
	return nil
}

// closeFrame is how e is sent (SPEC section 7).
func closeFrame(e *CloseError) (websocket.StatusCode, string) {
	switch e.Reason {
	case ReasonGoingAway:
		return codeGoingAway, e.Reason
	case ReasonReplaced:
		return codeReplaced, e.Reason
	case ReasonConflict:
		return codeConflict, e.Reason
	case ReasonDrain:
		return codeRestart, drainText(e.ComeBackIn)
	}
	return codeReason, e.Reason
}

// closeFrom is what a received close frame means. The code decides where it
// can; a text that is no token is not passed on.
func closeFrom(code websocket.StatusCode, text string) *CloseError {
	e := &CloseError{Remote: true}
	switch code {
	case codeReplaced:
		e.Reason = ReasonReplaced
	case codeConflict:
		e.Reason = ReasonConflict
	case codeRestart:
		e.Reason, e.ComeBackIn = ReasonDrain, parseDrain(text)
	case codeReason:
		e.Reason = text
	default:
		e.Reason = ReasonGoingAway
	}
	if !token(e.Reason) {
		e.Reason = "unknown"
	}
	return e
}

// acceptWebSocket answers the upgrade. On an error it has answered already.
func acceptWebSocket(w http.ResponseWriter, r *http.Request) (*conn, error) {
	h := &hijacker{ResponseWriter: w}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{
		Subprotocols:    []string{Protocol},
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, err
	}
	c := newConn(ws, h.bottom)
	c.park, c.ahead = newParker(h.conn), h.ahead
	return c, nil
}

// linkBuffer is the size of a link's two buffers at the broker. net/http's own are
// of 4 KiB each; what is larger than the buffer goes past it anyway.
const linkBuffer = 1 << 10

// hijacker remembers the connection that the library takes and hides, and gives
// it smaller buffers.
type hijacker struct {
	http.ResponseWriter
	conn, bottom net.Conn
	ahead        *bufio.Reader
}

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, brw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.bottom = c
	if t, ok := c.(*tls.Conn); ok {
		h.bottom = t.NetConn()
	}
	tuneTCP(h.bottom)
	if n := brw.Reader.Buffered(); n > 0 { // sent with the request, before our answer
		b := make([]byte, n)
		_, _ = io.ReadFull(brw.Reader, b)
		c = &earlyConn{Conn: c, early: b}
	}
	h.conn, h.ahead = c, bufio.NewReaderSize(c, linkBuffer)
	return c, bufio.NewReadWriter(h.ahead, bufio.NewWriterSize(c, linkBuffer)), nil
}

// earlyConn gives the bytes that net/http had read too far before those of the wire.
type earlyConn struct {
	net.Conn
	early []byte
}

func (c *earlyConn) Read(p []byte) (int, error) {
	if len(c.early) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.early)
	c.early = c.early[n:]
	return n, nil
}

// dialWebSocket asks for the upgrade. bottom returns the transport that client
// dialled. The response is not nil when there was one, whatever the error.
func dialWebSocket(ctx context.Context, url string, h http.Header, client *http.Client, bottom func() net.Conn) (*conn, *http.Response, error) {
	ws, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient:      client,
		HTTPHeader:      h,
		Subprotocols:    []string{Protocol},
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, resp, err
	}
	return newConn(ws, bottom()), resp, nil
}
