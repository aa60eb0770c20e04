package request

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
)

// errCutOff says that an archive ended before its end marker.
var errCutOff = errors.New("the archive was cut off: it has no end marker")

// compressed tells compressed streams by their first bytes.
func compressed(head []byte) bool {
	return compression.DetectCompression(head) != compression.Uncompressed ||
		bytes.HasPrefix(head, []byte("BZh")) || bytes.HasPrefix(head, []byte("\xfd7zXZ\x00"))
}

// isArchive tells archives, plain or compressed, from Dockerfiles by their first bytes.
func isArchive(head []byte) bool {
	if compressed(head) {
		return true
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil
}

// wholeTar passes a tar archive on and fails at its end if the end marker is missing (two blocks of zeros: POSIX.1-2008, pax
// interchange format). An archive that was cut off between two files is unpacked without complaint otherwise: the image would
// silently lack the rest. Close it, whether or not it was read to the end.
type wholeTar struct {
	r      io.Reader
	cutOff func()
	copy   *io.PipeWriter
	whole  chan bool // says once how the copy ended
}

func newWholeTar(r io.Reader, cutOff func()) *wholeTar {
	pr, pw := io.Pipe()
	w := &wholeTar{r: r, cutOff: cutOff, copy: pw, whole: make(chan bool, 1)}
	go func() {
		raw := &endSeen{Reader: pr}
		tr := tar.NewReader(raw)
		var err error
		for err == nil {
			_, err = tr.Next()
		}
		// With an end marker the tar reader stops of its own accord; without one it runs into the end of the input.
		w.whole <- errors.Is(err, io.EOF) && !raw.end
		_, _ = io.Copy(io.Discard, pr) // padding behind the marker
	}()
	return w
}

func (w *wholeTar) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	_, _ = w.copy.Write(p[:n])
	if errors.Is(err, io.EOF) {
		w.copy.Close()
		if !<-w.whole {
			w.cutOff()
			err = errCutOff
		}
		w.whole <- err == io.EOF // the answer stays for who reads again
	}
	return n, err
}

func (w *wholeTar) Close() error { return w.copy.Close() }

// endSeen remembers that its reader was at its end.
type endSeen struct {
	io.Reader
	end bool
}

func (e *endSeen) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	e.end = e.end || errors.Is(err, io.EOF)
	return n, err
}
