package store_test

import (
	"bytes"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/store"
)

// What is written to a held store, or was there when it would have been, outlives collections until the end, and not longer.
func TestHold(t *testing.T) {
	t.Parallel()
	s := newStore(t, store.Options{})
	collect := func() { // what follows the removal of a last name
		loadAs(t, s, "passing")
		_, err := s.Remove(t.Context(), "passing", false)
		ok(t, err)
	}
	there := func(d ocispecs.Descriptor) bool {
		_, err := s.Content.Info(t.Context(), d.Digest)
		if err != nil && !errdefs.IsNotFound(err) {
			t.Fatal(err)
		}
		return err == nil
	}
	blob := func(text string) (ocispecs.Descriptor, *bytes.Reader) {
		return ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: digest.FromString(text), Size: int64(len(text))}, bytes.NewReader([]byte(text))
	}

	outer, endOuter, err := s.Hold(t.Context())
	ok(t, err)
	shared, r := blob("of two")
	ok(t, content.WriteBlob(t.Context(), outer, shared.Digest.String(), r, shared))
	inner, endInner, err := s.Hold(t.Context())
	ok(t, err)
	own, r := blob("of one")
	ok(t, content.WriteBlob(t.Context(), inner, own.Digest.String(), r, own))
	if _, err := inner.Writer(t.Context(), content.WithRef("again"), content.WithDescriptor(shared)); !errdefs.IsAlreadyExists(err) { // so it is not sent again
		t.Fatalf("writing what is there: %v", err)
	}
	var none error
	endOuter(&none)
	collect()
	if !there(shared) || !there(own) {
		t.Error("a blob that is held was collected")
	}
	endInner(&none)
	ok(t, none)
	collect()
	if there(shared) || there(own) {
		t.Error("a blob outlives what held it")
	}
}
