package sharing

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/contentutil"
	"github.com/moby/buildkit/worker"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/cache/remote"
)

// broken is a provider whose layers can't be opened, or break off.
type broken struct {
	content.InfoProvider
	open, read error
	sessions   *int
}

func (b broken) ReaderAt(context.Context, ocispecs.Descriptor) (content.ReaderAt, error) {
	return brokenReader{err: b.read}, b.open
}

func (b broken) ProviderForSession(session.Group) content.Provider {
	*b.sessions++
	return b
}

type brokenReader struct {
	content.ReaderAt
	err error
}

func (r brokenReader) ReadAt([]byte, int64) (int, error) { return 0, r.err }

// TestPlainErrors: every way in which a layer of a plain cache can't be had is marked; an end of it, or of the build, is none.
func TestPlainErrors(t *testing.T) {
	lost := errors.New("lost")
	ended, end := context.WithCancel(t.Context())
	end()
	for name, c := range map[string]struct {
		open, read error
		ctx        context.Context
		marked     bool
	}{
		"open":        {open: lost, ctx: t.Context(), marked: true},
		"read":        {read: lost, ctx: t.Context(), marked: true},
		"end":         {read: io.EOF, ctx: t.Context()},
		"interrupted": {open: context.Canceled, ctx: ended},
	} {
		sessions := 0
		p := plainProvider{broken{open: c.open, read: c.read, sessions: &sessions}, "r/cache", false}
		for _, from := range []content.Provider{p, contentutil.ProviderForSession(p, nil)} {
			r, err := from.ReaderAt(c.ctx, ocispecs.Descriptor{Digest: digest.FromString("x")})
			if err == nil {
				_, err = r.ReadAt(nil, 0)
			}
			if !errors.Is(err, c.open) && !errors.Is(err, c.read) {
				t.Errorf("%s: error %v", name, err)
			}
			if marked := strings.Contains(err.Error(), remote.CantRead+" r/cache"); marked != c.marked {
				t.Errorf("%s: marked %v: %v", name, marked, err)
			}
		}
		if sessions != 1 {
			t.Errorf("%s: the session's provider was asked for %d times", name, sessions)
		}
	}
}

type shortReads struct{ *strings.Reader }

func (shortReads) Close() error { return nil }

func (r shortReads) ReadAt(b []byte, off int64) (int, error) {
	return r.Reader.ReadAt(b[:min(len(b), 7)], off)
}

// longer says that it has more than there is.
type longer struct{ shortReads }

func (r longer) Size() int64 { return r.shortReads.Size() + 1 }

// TestWhole: a layer that is another one, or breaks off, is an error before its end.
func TestWhole(t *testing.T) {
	text := "twenty-one bytes long"
	r := shortReads{strings.NewReader(text)}
	for name, c := range map[string]struct {
		from   content.ReaderAt
		digest digest.Digest
		want   string
	}{
		"right":      {r, digest.FromString(text), ""},
		"other":      {r, digest.FromString("other"), "what is there is not " + digest.FromString("other").String()},
		"breaks off": {longer{r}, digest.FromString(text), "it ends after 21 of 22 bytes"},
		"no digest":  {r, "x", ""},
	} {
		b, err := io.ReadAll(content.NewReader(newWhole(c.from, c.digest)))
		if got := errorText(err); got != c.want || string(b) != text {
			t.Errorf("%s: read %q, error %q, want %q", name, b, got, c.want)
		}
	}
	// In another order nothing is said.
	w := newWhole(r, digest.FromString("other"))
	for _, off := range []int64{7, 14, 0, 7, 14, 21} {
		if _, err := w.ReadAt(make([]byte, 7), off); err != nil && err != io.EOF {
			t.Errorf("read at %d: %v", off, err)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// silent is a cache that never answers.
type silent struct{ remotecache.Importer }

func (silent) Resolve(ctx context.Context, _ ocispecs.Descriptor, _ string, _ worker.Worker) (solver.CacheManager, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestSilent: a build does not wait for ever for a cache that does not answer; who ended the build is not told of caches.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := plainImporter{silent{}, "s3://cache", true}
		_, err := i.Resolve(t.Context(), ocispecs.Descriptor{}, "", nil)
		if err == nil || !strings.Contains(err.Error(), "s3://cache has not said in") {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := i.Resolve(ctx, ocispecs.Descriptor{}, "", nil); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "has not said") {
			t.Errorf("got %v", err)
		}
	})
}
