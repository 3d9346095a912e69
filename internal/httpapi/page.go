package httpapi

import (
	"net/http"
)

// pageText is what a link opens until there is a phone page. The secret of a link stands behind '#', which a browser
// does not send: this page neither sees nor needs it.
const pageText = `This is a link to a desktop.

Opening it changed nothing: a device is linked by a program that holds its own keys, not by this page.

  1. Install the program "surface" on this device.
  2. Run:  surface link
  3. Paste the whole link of this page, the part behind # included, when it asks.
  4. Type the digits that it shows into the desktop.

The link works once and for three minutes. Give it to nobody: whoever uses it first asks to control the desktop.
If someone sent you this link and you did not ask for it, close this page.
`

func (s *Server) page(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(pageText))
	return nil
}
