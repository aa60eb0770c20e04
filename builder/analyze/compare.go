package analyze

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Difference is the first thing in which two images differ.
type Difference struct {
	// Entry is the history's entry whose layer it is, 0 if it is the configuration.
	Entry       int
	Instruction string
	// Path in the image, or the field of the configuration.
	Path string
	// What differs: "content", "mode", "owner", "time", "attribute NAME", "target", "type", "existence", "value", "order",
	// "layers" (their number) or "compression".
	What string
	// First and Second are what the images have.
	First, Second string
	// TimesOnly says that nothing but times of modification differs, as far as was looked. They differ whenever a step runs again.
	TimesOnly bool
}

func (d Difference) String() string {
	where := "configuration"
	if d.Entry > 0 {
		where = fmt.Sprintf("#%d %s", d.Entry, printable(d.Instruction))
	}
	return fmt.Sprintf("%s: %s: %s: %s, then %s", where, printable(d.Path), d.What, d.First, d.Second)
}

// Compare returns the first difference of two images of one platform, or nil if they are the same to the bit. Differences in what
// files are come before differences in times, and those of layers before those of the configuration.
func Compare(ctx context.Context, a, b Image) (*Difference, error) {
	if a.Digest == b.Digest {
		return nil, nil
	}
	var times *Difference
	entries := layerEntries(a)
	for i := range min(len(a.Manifest.Layers), len(b.Manifest.Layers)) {
		la, lb := a.Manifest.Layers[i], b.Manifest.Layers[i]
		if la.Digest == lb.Digest {
			continue
		}
		d, err := compareLayer(ctx, a, b, la, lb)
		if err != nil {
			return nil, fmt.Errorf("compare layers %d of %s and %s: %w", i+1, a.Name, b.Name, err)
		}
		if i < len(entries) {
			d.Entry, d.Instruction = entries[i].Number, entries[i].Instruction
		}
		if !d.TimesOnly {
			return d, nil
		}
		if times == nil {
			times = d
		}
	}
	if na, nb := len(a.Manifest.Layers), len(b.Manifest.Layers); na != nb {
		return &Difference{Path: "rootfs", What: "layers", First: fmt.Sprint(na), Second: fmt.Sprint(nb)}, nil
	}
	if times != nil {
		return times, nil
	}
	return compareConfig(a, b)
}

// layerEntries are the entries of the history that have layers.
func layerEntries(im Image) []Entry {
	var r Report
	r.addHistory(im)
	return slices.DeleteFunc(r.History, func(e Entry) bool { return e.Layer == "" })
}

// compareLayer finds the first difference of two layers whose blobs differ.
func compareLayer(ctx context.Context, a, b Image, la, lb ocispecs.Descriptor) (*Difference, error) {
	ra, err := a.openLayer(ctx, la)
	if err != nil {
		return nil, err
	}
	defer ra.close()
	rb, err := b.openLayer(ctx, lb)
	if err != nil {
		return nil, err
	}
	defer rb.close()
	ta, tb := tar.NewReader(ra), tar.NewReader(rb)
	var times *Difference
	var c comparer
	for {
		ha, erra := ta.Next()
		hb, errb := tb.Next()
		enda, endb := errors.Is(erra, io.EOF), errors.Is(errb, io.EOF)
		switch {
		case enda && endb:
			if times != nil {
				return times, nil
			}
			if err := errors.Join(ra.rest(), rb.rest()); err != nil {
				return nil, err
			}
			return &Difference{Path: "(layer)", What: "compression", First: describeBlob(la), Second: describeBlob(lb)}, nil
		case enda:
			return &Difference{Path: "/" + clean(hb.Name), What: "existence", First: "not there", Second: "there"}, errIf(errb)
		case endb:
			return &Difference{Path: "/" + clean(ha.Name), What: "existence", First: "there", Second: "not there"}, errIf(erra)
		case erra != nil || errb != nil:
			return nil, errors.Join(erra, errb)
		}
		if clean(ha.Name) != clean(hb.Name) {
			return order(ha, hb), nil
		}
		d, err := c.member(ctx, ha, hb, ta, tb)
		if err != nil {
			return nil, err
		}
		if d != nil && !d.TimesOnly {
			return d, nil
		}
		if times == nil {
			times = d
		}
	}
}

func errIf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func describeBlob(d ocispecs.Descriptor) string {
	return fmt.Sprintf("%d bytes of %s", d.Size, strings.TrimPrefix(d.MediaType, "application/vnd."))
}

// order says which of two paths, at the same place of two sorted archives, the other archive does not have.
func order(a, b *tar.Header) *Difference {
	pa, pb := clean(a.Name), clean(b.Name)
	if pa < pb {
		return &Difference{Path: "/" + pa, What: "existence", First: "there", Second: "not there (or later)"}
	}
	return &Difference{Path: "/" + pb, What: "existence", First: "not there (or later)", Second: "there"}
}

// member compares two members of the same name, content last; nil if they are the same.
func (c *comparer) member(ctx context.Context, a, b *tar.Header, ra, rb io.Reader) (*Difference, error) {
	path := "/" + clean(a.Name)
	diff := func(what string, first, second any) *Difference {
		return &Difference{Path: path, What: what, First: fmt.Sprint(first), Second: fmt.Sprint(second)}
	}
	switch {
	case a.Typeflag != b.Typeflag:
		return diff("type", typeName(a), typeName(b)), nil
	case a.Linkname != b.Linkname:
		return diff("target", a.Linkname, b.Linkname), nil
	case a.Mode != b.Mode:
		return diff("mode", fmt.Sprintf("%04o", a.Mode), fmt.Sprintf("%04o", b.Mode)), nil
	case a.Uid != b.Uid || a.Gid != b.Gid:
		return diff("owner", fmt.Sprintf("%d:%d", a.Uid, a.Gid), fmt.Sprintf("%d:%d", b.Uid, b.Gid)), nil
	case a.Devmajor != b.Devmajor || a.Devminor != b.Devminor:
		return diff("device", fmt.Sprintf("%d:%d", a.Devmajor, a.Devminor), fmt.Sprintf("%d:%d", b.Devmajor, b.Devminor)), nil
	}
	if d := compareAttributes(a, b, diff); d != nil {
		return d, nil
	}
	if a.Size != b.Size {
		return diff("content", fmt.Sprintf("%d bytes", a.Size), fmt.Sprintf("%d bytes", b.Size)), nil
	}
	at, err := c.firstDifference(ctx, ra, rb)
	if err != nil {
		return nil, err
	}
	if at.offset >= 0 {
		return diff("content", fmt.Sprintf("%q at byte %d", at.first, at.offset), fmt.Sprintf("%q", at.second)), nil
	}
	if !a.ModTime.Equal(b.ModTime) {
		d := diff("time", a.ModTime.UTC().Format(time.RFC3339Nano), b.ModTime.UTC().Format(time.RFC3339Nano))
		d.TimesOnly = true
		return d, nil
	}
	return nil, nil
}

func compareAttributes(a, b *tar.Header, diff func(string, any, any) *Difference) *Difference {
	names := map[string]bool{}
	for _, h := range []*tar.Header{a, b} {
		for k := range h.PAXRecords {
			if strings.HasPrefix(k, xattrPrefix) {
				names[k] = true
			}
		}
	}
	for _, k := range sorted(names) {
		va, oka := a.PAXRecords[k]
		vb, okb := b.PAXRecords[k]
		if va != vb || oka != okb {
			return diff("attribute "+strings.TrimPrefix(k, xattrPrefix), attribute(va, oka), attribute(vb, okb))
		}
	}
	return nil
}

func attribute(v string, there bool) string {
	if !there {
		return "not there"
	}
	return fmt.Sprintf("%q", v)
}

func typeName(h *tar.Header) string {
	switch h.Typeflag {
	case tar.TypeDir:
		return "directory"
	case tar.TypeReg:
		return "file"
	case tar.TypeSymlink:
		return "symbolic link"
	case tar.TypeLink:
		return "hard link"
	}
	return fmt.Sprintf("type %q", h.Typeflag)
}

// comparer holds the buffers of a comparison.
type comparer struct{ a, b [64 << 10]byte }

// excerpt is where two contents begin to differ, and what they have there; offset is -1 if they do not.
type excerpt struct {
	offset        int64
	first, second []byte
}

// excerptBytes is how much of a differing content is shown.
const excerptBytes = 24

// firstDifference compares two streams of the same length.
func (c *comparer) firstDifference(ctx context.Context, a, b io.Reader) (excerpt, error) {
	ba, bb := c.a[:], c.b[:]
	for offset := int64(0); ; {
		na, erra := io.ReadFull(a, ba)
		nb, errb := io.ReadFull(b, bb)
		for _, err := range []error{erra, errb, ctx.Err()} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return excerpt{}, err
			}
		}
		if na != nb {
			return excerpt{}, fmt.Errorf("read %d and %d bytes of the same size", na, nb)
		}
		if !bytes.Equal(ba[:na], bb[:nb]) {
			i := 0
			for ba[i] == bb[i] {
				i++
			}
			end := min(na, i+excerptBytes)
			return excerpt{offset + int64(i), ba[i:end], bb[i:end]}, nil
		}
		if erra != nil {
			return excerpt{offset: -1}, nil
		}
		offset += int64(na)
	}
}

// compareConfig finds the first field in which two configurations differ; with equal ones the manifests do.
func compareConfig(a, b Image) (*Difference, error) {
	if a.Manifest.Config.Digest != b.Manifest.Config.Digest {
		var va, vb any
		if err := errors.Join(json.Unmarshal(a.RawConf, &va), json.Unmarshal(b.RawConf, &vb)); err != nil {
			return nil, err
		}
		if d := compareValue("", va, vb); d != nil {
			return d, nil
		}
		return &Difference{Path: "(whole)", What: "order", First: short(a.Manifest.Config.Digest), Second: short(b.Manifest.Config.Digest)}, nil
	}
	return &Difference{Path: "(manifest)", What: "value", First: short(a.Digest), Second: short(b.Digest)}, nil
}

func short(d digest.Digest) string { return d.Algorithm().String() + ":" + d.Encoded()[:12] }

// compareValue finds the first difference of two decoded JSON values.
func compareValue(path string, a, b any) *Difference {
	ma, oka := a.(map[string]any)
	mb, okb := b.(map[string]any)
	if oka && okb {
		names := map[string]bool{}
		for k := range ma {
			names[k] = true
		}
		for k := range mb {
			names[k] = true
		}
		for _, k := range sorted(names) {
			if d := compareValue(strings.TrimPrefix(path+"."+k, "."), ma[k], mb[k]); d != nil {
				return d
			}
		}
		return nil
	}
	la, oka := a.([]any)
	lb, okb := b.([]any)
	if oka && okb && len(la) == len(lb) {
		for i := range la {
			if d := compareValue(fmt.Sprintf("%s[%d]", path, i), la[i], lb[i]); d != nil {
				return d
			}
		}
		return nil
	}
	ja, _ := json.Marshal(a)
	jb, _ := json.Marshal(b)
	if bytes.Equal(ja, jb) {
		return nil
	}
	d := &Difference{Path: path, What: "value", First: string(ja), Second: string(jb)}
	d.TimesOnly = path == "created" || strings.HasPrefix(path, "history[") && strings.HasSuffix(path, ".created")
	return d
}
