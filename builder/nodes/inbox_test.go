package nodes

import (
	"bytes"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestInbox: a node can send, and see that something is there; it can't see what, nor change it.
func TestInbox(t *testing.T) {
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	i := inbox{store}
	text := []byte("another project's")
	d := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Digest: digest.FromBytes(text), Size: int64(len(text))}
	if err := content.WriteBlob(t.Context(), i, "sent", bytes.NewReader(text), d); err != nil {
		t.Fatalf("send: %v", err)
	}
	if _, err := i.Info(t.Context(), d.Digest); err != nil {
		t.Errorf("ask: %v", err)
	}
	if _, err := content.ReadBlob(t.Context(), i, d); err == nil {
		t.Error("it was read")
	}
	if err := i.Walk(t.Context(), func(content.Info) error { return nil }); err == nil {
		t.Error("they were listed")
	}
	if _, err := i.Update(t.Context(), content.Info{Digest: d.Digest, Labels: map[string]string{"a": "b"}}, "labels.a"); err == nil {
		t.Error("it was labelled")
	}
	if err := i.Delete(t.Context(), d.Digest); err == nil {
		t.Error("it was deleted")
	}
	if _, err := store.Info(t.Context(), d.Digest); err != nil {
		t.Errorf("it is gone: %v", err)
	}
}
