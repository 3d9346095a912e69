// Package api holds the document of the broker's surface and operator API. The document is written by hand and is
// the contract: tests validate every exchange against it.
package api

import _ "embed"

// OpenAPI is openapi.yaml, an OpenAPI 3.1 document. It must not be changed by the caller.
//
//go:embed openapi.yaml
var OpenAPI []byte
