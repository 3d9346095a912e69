// Package proof is what can be checked without a secret: the canonical encoding, the labels, ids, scopes and kinds,
// the headers of envelopes, results, epochs and batches, the transcript of a linking, grants, and every signature of
// the protocol. The broker verifies with it and links nothing that could open a sealed byte.
//
// Rules that hold for all of it (docs/protocol/linking.md, docs/protocol/seal.md):
//   - what is signed, hashed or authenticated starts with its own label, then length-prefixed fields;
//   - a field's length is four bytes, big-endian; numbers are eight bytes, big-endian, at most 2^53-1, times are Unix
//     milliseconds by the clock that the field's comment names;
//   - a decoder takes exactly one encoding of a value: trailing bytes, over-long and missing fields are refused.
//
// All functions are pure and safe for concurrent use.
package proof
