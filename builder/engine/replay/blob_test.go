package replay

import (
	"context"
	"errors"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

type innerStore struct{ content.Store }

var errInner = errors.New("inner")

func (innerStore) Writer(context.Context, ...content.WriterOpt) (content.Writer, error) {
	return nil, errInner
}

func (innerStore) Compare(context.Context, []mount.Mount, []mount.Mount, ...diff.Opt) (ocispecs.Descriptor, error) {
	return ocispecs.Descriptor{}, errInner
}

// TestGift: a blob is given to the record that it is for, in the call that it travels with, and to none else.
func TestGift(t *testing.T) {
	blob := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayerZstd, Digest: "sha256:" + "12", Size: 7}
	g := &gift{record: "mine", blob: blob, taken: make(chan struct{})}
	gone := false
	g.take = func(context.Context) error {
		if gone {
			return errors.New("gone")
		}
		return nil
	}
	with := context.WithValue(t.Context(), giftKey{}, g)
	store, differ := Contents(innerStore{}), Comparer(innerStore{})
	for _, c := range []struct {
		name   string
		ctx    context.Context
		record string
		want   error
	}{
		{"another record", with, "other", errInner},
		{"no record", with, "", errInner},
		{"another call", t.Context(), "mine", errInner},
		{"the record", with, "mine", errGiven},
	} {
		if _, err := store.Writer(c.ctx, content.WithRef(c.record)); err != c.want {
			t.Errorf("%s: writer: %v, want %v", c.name, err, c.want)
		}
		if c.want != errInner {
			continue
		}
		if _, err := differ.Compare(c.ctx, nil, nil, diff.WithReference(c.record)); err != errInner {
			t.Errorf("%s: differ: %v", c.name, err)
		}
	}
	select {
	case <-g.taken:
		t.Error("taken before it was asked for")
	default:
	}
	got, err := differ.Compare(with, nil, nil, diff.WithReference("mine"))
	if err != nil || got.Digest != blob.Digest || got.MediaType != blob.MediaType || got.Size != blob.Size {
		t.Errorf("given: %v, %v", got, err)
	}
	<-g.taken

	// It went meanwhile: the record's blob is computed.
	gone = true
	for range 2 {
		if _, err := differ.Compare(with, nil, nil, diff.WithReference("mine")); err != errInner {
			t.Errorf("gone: differ: %v", err)
		}
		if _, err := store.Writer(with, content.WithRef("mine")); err != errInner {
			t.Errorf("gone: writer: %v", err)
		}
	}
}

// TestBackground: what is under way is canceled and waited for, and nothing begins after that.
func TestBackground(t *testing.T) {
	start, stop := background()
	begun, ended := make(chan struct{}), false
	if !start(func(ctx context.Context) {
		close(begun)
		<-ctx.Done()
		ended = true
	}) {
		t.Fatal("not started")
	}
	<-begun
	stop()
	if !ended {
		t.Error("stop did not wait")
	}
	if start(func(context.Context) { t.Error("started after the end") }) {
		t.Error("start says that it did")
	}
	stop()
}

func TestSerial(t *testing.T) {
	for key, want := range map[string]int{"buildkit/17/abc": 17, "buildkit/x/abc": -1, "abc": -1, "": -1} {
		if got := serial(key); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
	}
}
