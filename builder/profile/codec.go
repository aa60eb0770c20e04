package profile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

// version is that of the format; FORMAT.md describes it.
const version = 1

// document is an encoded profile but for its files, which stand on a line each.
type document struct {
	Version  int             `json:"version"`
	Image    string          `json:"image,omitempty"`
	Platform string          `json:"platform"`
	Until    string          `json:"until"`
	Layers   []digest.Digest `json:"layers,omitempty"`
}

type file struct {
	Path  string `json:"path"`
	Type  Type   `json:"type"`
	Read  bool   `json:"read,omitempty"`
	Bytes int64  `json:"bytes,omitempty"`
	Layer int    `json:"layer"`
}

// Encode returns the bytes of a profile: equal profiles have equal ones. An error says that it is none, or too large.
func Encode(p *Profile) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("encode profile: %w", err)
	}
	var b bytes.Buffer
	head, err := line(document{version, p.Image, p.Platform, p.Until, p.Layers})
	if err != nil {
		return nil, err
	}
	b.Write(bytes.TrimSuffix(head, []byte("}")))
	b.WriteString(`,"files":[`)
	for i, f := range p.Files {
		if i > 0 {
			b.WriteByte(',')
		}
		entry, err := line(file(f))
		if err != nil {
			return nil, err
		}
		b.WriteByte('\n')
		b.Write(entry)
	}
	b.WriteString("\n]}\n")
	if b.Len() > MaxBytes {
		return nil, fmt.Errorf("encode profile: it has %d bytes: too many", b.Len())
	}
	return b.Bytes(), nil
}

// line is v as JSON, for people: without escapes for HTML.
func line(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode profile: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// ErrVersion is wrapped by the error of decoding a profile of a format that this program does not know.
var ErrVersion = errors.New("it is of another version of the format")

// Decode reads what Encode has written. It is for bytes from anywhere: whatever is wrong with them is an error, and memory is bounded by their number.
func Decode(b []byte) (*Profile, error) {
	p, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("decode profile: %w", err)
	}
	return p, nil
}

func decode(b []byte) (*Profile, error) {
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("it has %d bytes: too many", len(b))
	}
	var d struct {
		document
		Files []file `json:"files"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&d); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind its end")
	}
	if d.Version != version {
		return nil, fmt.Errorf("%w (%d)", ErrVersion, d.Version)
	}
	p := &Profile{Image: d.Image, Platform: d.Platform, Until: d.Until, Layers: d.Layers}
	for _, f := range d.Files {
		p.Files = append(p.Files, File(f))
	}
	return p, p.check()
}

// ReadFrom decodes all that r has.
func ReadFrom(r io.Reader) (*Profile, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	return Decode(b)
}
