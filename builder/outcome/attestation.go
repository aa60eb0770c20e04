package outcome

import "github.com/opencontainers/go-digest"

// AttrBeside is the attribute of an export that has attestations put beside the manifests that they are about, and not into an index.
const AttrBeside = "optbuild.attest-beside"

// AttestationsKey is where a list of Attestations stands, as JSON in base64, in the response of a solve.
const AttestationsKey = "optbuild.attestations"

// Attestation is an artifact with what is attested of an image's manifest.
type Attestation struct {
	Manifest digest.Digest `json:"manifest"`
	Digest   digest.Digest `json:"digest"`
	Size     int64         `json:"size"` // bytes of the artifact's own manifest
}

// AttrRecorded is the attribute of an export with the word by which provenance is told that BuildKit elsewhere has recorded. An attestation has it under RecordedKey in its metadata, and the recording
// as a file of its ref. A frontend does not know the word, and can claim nothing of how an image was made.
const (
	AttrRecorded = "optbuild.recorded"
	RecordedKey  = "optbuild.recorded"
)
