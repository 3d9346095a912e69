package proof

// Labels start every input of a signature, hash, MAC or key derivation (section 0), so that bytes made for one
// purpose never serve another. None is the beginning of another one, because each ends in NUL.
const (
	LabelPairing = "odp/pid/v1\x00"
	LabelSurface = "odp/sid/v1\x00"

	LabelRedeem = "odp/redeem\x00"
	LabelTunnel = "odp/tunnel\x00"
	LabelAuth   = "odp/auth\x00"
	LabelToken  = "odp/token\x00"
	LabelHello  = "odp/hello\x00"
	LabelRevoke = "odp/revoke\x00"
	LabelBundle = "odp/bundle\x00"

	LabelEnrolCode = "odp/enrol-code\x00"
	LabelLinkCode  = "odp/link-code\x00"

	LabelOpen       = "odp/open\x00"
	LabelCommit     = "odp/commit/v1\x00"
	LabelMACDesktop = "odp/mac/d\x00"
	LabelMACSurface = "odp/mac/s\x00"
	LabelTranscript = "odp/link/v1\x00"
	LabelLink       = "odp/link-T\x00"
	LabelDigits     = "odp/sas/v1\x00"
	LabelFinish     = "odp/sas2/v1\x00"
	LabelFinished   = "odp/finish\x00"
	LabelGrant      = "odp/grant\x00"

	LabelCommand     = "odp/cmd\x00"
	LabelCommandSig  = "odp/cmd-sig\x00"
	LabelPlaintext   = "odp/pt\x00"
	LabelResult      = "odp/result\x00"
	LabelEpoch       = "odp/epoch\x00"
	LabelBatch       = "odp/batch\x00"
	LabelBeat        = "odp/beat\x00"
	LabelRequest     = "odp/req\x00"
	LabelRequestList = "odp/reqs\x00"
)
