package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestPushEmpty: a push ends with the registry's answer, also if the blob has no content.
func TestPushEmpty(t *testing.T) {
	f := newFake()
	s := f.open(t, Options{})
	f.fail = func(_ int, r *http.Request, _ []byte) (*http.Response, error) {
		if r.Method != http.MethodPut {
			return nil, nil
		}
		return answer(r, http.StatusForbidden, ""), nil
	}
	if _, err := s.PushBytes(t.Context(), "application/x", nil); err == nil {
		t.Error("what the registry refused is pushed")
	}
	f.fail = nil
	d, err := s.PushBytes(t.Context(), "application/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := s.Fetch(t.Context(), d, 1); err != nil || len(b) != 0 {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestFetchChecks(t *testing.T) {
	f := newFake()
	s := f.open(t, Options{})
	d, err := s.PushBytes(t.Context(), "application/x", []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*ocispecs.Descriptor)) ocispecs.Descriptor {
		d := d
		change(&d)
		return d
	}
	for name, c := range map[string]struct {
		d    ocispecs.Descriptor
		most int64
		want error
	}{
		"all is well": {d, 7, nil},
		"too large":   {d, 6, ErrDamaged},
		"too short":   {with(func(d *ocispecs.Descriptor) { d.Size = 8 }), 100, ErrDamaged},
		"too long":    {with(func(d *ocispecs.Descriptor) { d.Size = 6 }), 100, ErrDamaged},
		"negative":    {with(func(d *ocispecs.Descriptor) { d.Size = -1 }), 100, ErrDamaged},
		"no digest":   {with(func(d *ocispecs.Descriptor) { d.Digest = "sha256:../x" }), 100, ErrDamaged},
		"not there":   {with(func(d *ocispecs.Descriptor) { d.Digest = digest.FromString("x") }), 100, errdefs.ErrNotFound},
		// A cache must not be able to send its readers anywhere, nor to bring content that is not in the registry.
		"elsewhere": {with(func(d *ocispecs.Descriptor) { d.URLs = []string{"http://metadata.test/secret"} }), 100, nil},
		"inline":    {with(func(d *ocispecs.Descriptor) { d.Data = []byte("CONTENT") }), 100, nil},
	} {
		b, err := s.Fetch(t.Context(), c.d, c.most)
		if !errors.Is(err, c.want) || (err == nil) != (string(b) == "content") {
			t.Errorf("%s: %q, %v; want error %v", name, b, err, c.want)
		}
	}
	// A registry, or somebody on the way, that sends other bytes of the same length.
	f.fail = func(_ int, r *http.Request, _ []byte) (*http.Response, error) {
		return answer(r, http.StatusOK, "CONTENT"), nil
	}
	if _, err := s.Fetch(t.Context(), d, 100); !errors.Is(err, ErrDamaged) {
		t.Errorf("other bytes: %v", err)
	}
}

func TestPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		ctx := t.Context()
		s := f.open(t, Options{})
		b := bytes.Repeat([]byte("layer"), 1000)
		d := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: digest.FromBytes(b), Size: int64(len(b))}
		if err := s.Push(ctx, d, memory(b), nil); err != nil {
			t.Fatal(err)
		}
		// What the registry has is not sent, nor read.
		before := f.count()
		if err := s.Push(ctx, d, unreadable{}, nil); err != nil {
			t.Fatal(err)
		}
		if got := f.since(before); len(got) != 1 {
			t.Errorf("pushing again: %v", got)
		}
		if err := s.Push(ctx, layer("unread", 5), unreadable{}, nil); err == nil {
			t.Error("an error of reading is none of pushing")
		}
		wrong := d
		wrong.Digest = digest.FromString("another")
		if err := s.Push(ctx, wrong, memory(b), nil); err == nil {
			t.Error("the registry took what has another digest")
		}
	})
}

// TestPushMounts: a blob that another repository of the registry has is not sent, and where mounting is refused it is.
func TestPushMounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mounts := range []bool{true, false} {
			f := newFake()
			var asked []string
			f.fail = func(_ int, r *http.Request, _ []byte) (*http.Response, error) {
				if from := r.URL.Query().Get("from"); from != "" {
					asked = append(asked, from)
					if mounts {
						return answer(r, http.StatusCreated, ""), nil
					}
				}
				return nil, nil
			}
			named := func(name string) reference.Named {
				n, err := reference.ParseNormalizedNamed(name)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			b := []byte("layer")
			d := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: digest.FromBytes(b), Size: int64(len(b))}
			s := f.open(t, Options{})
			var p content.Provider = memory(b)
			if mounts {
				p = unreadable{}
			}
			if err := s.Push(t.Context(), d, p, named(host+"/team/image:latest")); err != nil {
				t.Errorf("mounts %v: %v", mounts, err)
			}
			if fmt.Sprint(asked) != "[team/image]" {
				t.Errorf("asked to mount from %v", asked)
			}
			asked = nil
			for _, other := range []string{"elsewhere.test/team/image", host + "/team/app"} {
				if err := s.Push(t.Context(), layer(other, 5), memory("x"), named(other)); err == nil || len(asked) > 0 {
					t.Errorf("%s: %v, asked to mount from %v", other, err, asked)
				}
			}
		}
	})
}

type unreadable struct{}

func (unreadable) ReaderAt(context.Context, ocispecs.Descriptor) (content.ReaderAt, error) {
	return nil, errors.New("it is read")
}

func TestProvider(t *testing.T) {
	f := newFake()
	s := f.open(t, Options{})
	b := make([]byte, 100_000)
	for i := range b {
		b[i] = byte(i * i >> 3)
	}
	d, err := s.PushBytes(t.Context(), "application/x", b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := content.ReadBlob(t.Context(), s.Provider(), d)
	if err != nil || !bytes.Equal(got, b) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	r, err := s.Provider().ReaderAt(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, off := range []int64{500, 0, 99_990, 510, 0} {
		p := make([]byte, 10)
		if n, err := r.ReadAt(p, off); n != 10 || err != nil && off+10 != r.Size() || !bytes.Equal(p, b[off:off+10]) {
			t.Errorf("at %d: %x, %v", off, p[:n], err)
		}
	}
	p := make([]byte, 20)
	if n, err := r.ReadAt(p, 99_990); n != 10 || err != io.EOF {
		t.Errorf("over the end: %d, %v", n, err)
	}
}

// TestLostBlobs: a registry that has lost blobs refuses a manifest that names them. The entries that need them go, the others stay.
func TestLostBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		good, fresh := pushed(t, f, "good"), pushed(t, f, "fresh")
		lost := entry("test", "lost", when)
		if err := f.open(t, Options{Write: "main"}).Add(t.Context(), []Entry{good, lost}); err != nil {
			t.Fatal(err)
		}
		f.checkBlobs = true
		s := f.open(t, Options{Write: "main"})
		if err := s.Add(t.Context(), []Entry{fresh}); err != nil {
			t.Fatal(err)
		}
		x, err := s.Load(t.Context())
		if err != nil || !x.Has(good) || !x.Has(fresh) || x.Has(lost) {
			t.Errorf("entries %v, %v", x.All(""), err)
		}
		// An entry whose own blobs were not pushed is its caller's mistake.
		if err := s.Add(t.Context(), []Entry{entry("test", "not pushed", when)}); err == nil || !strings.Contains(err.Error(), "not in the registry") {
			t.Errorf("Add = %v", err)
		}
	})
}
