package integration

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/testscript"
)

// image-formats REF FORMAT...: the layers are compressed so, from the lowest on: gzip, zstd, estargz, zstd:chunked or uncompressed. A layer is checked to be what it seems to be: that its
// tar has the digest that the configuration says, and of eStargz that stargz-snapshotter's library opens it, finds the table of contents that the manifest names, and
// reads every file by it as it is in the tar.
func imageFormats(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) > 1, "image-formats REF FORMAT...")
	img := openImage(ts, args[0])
	layers, err := img.Layers()
	ts.Check(err)
	m, err := img.Manifest()
	ts.Check(err)
	config, err := img.ConfigFile()
	ts.Check(err)
	var got []string
	for i, l := range layers {
		format, err := compressionOf(l, m.Layers[i])
		if err != nil {
			ts.Fatalf("layer %d of %s: %v", i, args[0], err)
		}
		r, err := l.Uncompressed()
		ts.Check(err)
		h, _, err := v1.SHA256(r)
		ts.Check(err)
		if h != config.RootFS.DiffIDs[i] {
			ts.Fatalf("layer %d of %s has the digest %s, not %s", i, args[0], h, config.RootFS.DiffIDs[i])
		}
		got = append(got, format)
	}
	if !slices.Equal(got, args[1:]) {
		ts.Fatalf("layers of %s are %s, want %s", args[0], strings.Join(got, " "), strings.Join(args[1:], " "))
	}
}

// compressionOf tells a layer's compression from its bytes, and that its media type says the same.
func compressionOf(l v1.Layer, d v1.Descriptor) (string, error) {
	r, err := l.Compressed()
	if err != nil {
		return "", err
	}
	defer r.Close()
	blob, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	format, types := "uncompressed", []string{"layer.v1.tar", "rootfs.diff.tar"}
	switch {
	case bytes.HasPrefix(blob, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		format, types = "zstd", []string{"tar+zstd"}
	case bytes.HasPrefix(blob, []byte{0x1f, 0x8b}):
		format, types = "gzip", []string{"tar+gzip", "tar.gzip"}
	}
	if !slices.ContainsFunc(types, func(t string) bool { return strings.HasSuffix(string(d.MediaType), t) }) {
		return "", fmt.Errorf("it is %s and has the media type %s", format, d.MediaType)
	}
	toc, named := d.Annotations[estargz.TOCJSONDigestAnnotation]
	if format == "zstd" && named {
		return "zstd:chunked", checkChunked(blob, toc, d.Annotations)
	}
	if format != "gzip" || !named {
		return format, nil
	}
	return "estargz", checkStargz(blob, toc, d.Annotations[estargz.StoreUncompressedSizeAnnotation])
}

// checkChunked reads a blob by its annotations, as Podman does, and by its footer, as stargz-snapshotter does.
func checkChunked(blob []byte, toc string, annotations map[string]string) error {
	r, err := estargz.Open(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))), estargz.WithDecompressors(new(zstdchunked.Decompressor)))
	if err != nil {
		return err
	}
	if _, err := r.VerifyTOC(digest.Digest(toc)); err != nil {
		return err
	}
	var at, size, plain, kind int
	position := annotations[zstdchunked.ManifestPositionAnnotation]
	if _, err := fmt.Sscanf(position, "%d:%d:%d:%d", &at, &size, &plain, &kind); err != nil || at+size > len(blob) || kind != 1 {
		return fmt.Errorf("the table is at %q: %v", position, err)
	}
	table := blob[at : at+size]
	if got, want := digest.FromBytes(table).String(), annotations[zstdchunked.ManifestChecksumAnnotation]; got != want {
		return fmt.Errorf("the compressed table has the digest %s, not %s", got, want)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		return err
	}
	defer z.Close()
	list, err := z.DecodeAll(table, nil)
	if err != nil || len(list) != plain || digest.FromBytes(list).String() != toc {
		return fmt.Errorf("the table has %d bytes, not %d, and the digest %s: %v", len(list), plain, digest.FromBytes(list), err)
	}
	return nil
}

func checkStargz(blob []byte, toc, size string) error {
	r, err := estargz.Open(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))))
	if err != nil {
		return err
	}
	verifier, err := r.VerifyTOC(digest.Digest(toc))
	if err != nil {
		return err
	}
	plain, err := estargz.Unpack(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))), new(estargz.GzipDecompressor))
	if err != nil {
		return err
	}
	for t := tar.NewReader(plain); ; {
		h, err := t.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		want, err := io.ReadAll(t)
		if err != nil {
			return err
		}
		f, err := r.OpenFile(h.Name)
		if err != nil {
			return err
		}
		if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s has %d bytes, and %d by the table: %w", h.Name, len(want), len(got), err)
		}
		if len(want) == 0 {
			continue
		}
		chunk, ok := r.ChunkEntryForOffset(path.Clean(h.Name), 0)
		if !ok {
			return fmt.Errorf("%s has no chunk", h.Name)
		}
		v, err := verifier.Verifier(chunk)
		if err != nil {
			return err
		}
		if _, _ = v.Write(want[:chunk.ChunkSize]); !v.Verified() {
			return fmt.Errorf("%s does not verify", h.Name)
		}
	}
	if size == "" {
		return fmt.Errorf("its annotations lack the uncompressed size")
	}
	return nil
}

// images-same REF REF: the same files, and the same configuration but for the digests of the layers.
func imagesSame(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "images-same REF REF")
	var trees []map[string]string
	var configs []string
	for _, ref := range args {
		img := openImage(ts, ref)
		config, err := img.ConfigFile()
		ts.Check(err)
		config = config.DeepCopy()
		config.RootFS.DiffIDs = nil
		b, err := json.Marshal(config)
		ts.Check(err)
		configs = append(configs, string(b))
		tree, err := treeOf(img)
		ts.Check(err)
		trees = append(trees, tree)
	}
	if configs[0] != configs[1] {
		ts.Fatalf("configurations differ:\n%s\n%s", configs[0], configs[1])
	}
	for name := range maps.Keys(trees[0]) {
		if trees[0][name] != trees[1][name] {
			ts.Fatalf("%s: %q in %s, %q in %s", name, trees[0][name], args[0], trees[1][name], args[1])
		}
		delete(trees[1], name)
	}
	if len(trees[1]) > 0 {
		ts.Fatalf("only in %s: %q", args[1], slices.Sorted(maps.Keys(trees[1])))
	}
}

// treeOf describes every file of an image. A table of contents is none.
func treeOf(img v1.Image) (map[string]string, error) {
	tree := map[string]string{}
	r := mutate.Extract(img)
	defer r.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return tree, nil
		} else if err != nil {
			return nil, err
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, t); err != nil {
			return nil, err
		}
		tree[path.Clean("/"+h.Name)] = fmt.Sprintf("%c %o %d:%d %s %s %v %x", h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime.UTC(), h.Linkname, h.PAXRecords, sum.Sum(nil))
	}
}

// [!] await-blob DIR BYTES: the state directory DIR has a blob of at least so many bytes, now or soon; with !, it has none now.
func awaitBlob(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, false, len(args) == 2, "[!] await-blob DIR BYTES")
	least, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	there := func() bool {
		found, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "cache", "*", "content", "blobs", "sha256", "*"))
		ts.Check(err)
		return slices.ContainsFunc(found, func(file string) bool {
			fi, err := os.Stat(file)
			return err == nil && fi.Size() >= least
		})
	}
	if neg {
		if there() {
			ts.Fatalf("%s has a blob of %d bytes", args[0], least)
		}
		return
	}
	// Nothing tells when a layer was compressed in the background: that is the point of it.
	for end := time.Now().Add(patience); !there(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("%s has no blob of %d bytes", args[0], least)
		}
	}
}

// await-log DIR REGEXP: the log of the state directory has a line, or will have it.
func awaitLog(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "await-log DIR REGEXP")
	want, err := regexp.Compile(args[1])
	ts.Check(err)
	// A log tells nobody that it has grown.
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		log, err := os.ReadFile(filepath.Join(ts.MkAbs(args[0]), "engine.log"))
		if err == nil && want.Match(log) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("the log of %s has no line like %s:\n%s", args[0], want, log)
		}
	}
}

// image-begins REF LAYER NAME...: the first files of a layer, which is counted from 0.
func imageBegins(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) > 2, "image-begins REF LAYER NAME...")
	layers, err := openImage(ts, args[0]).Layers()
	ts.Check(err)
	i, err := strconv.Atoi(args[1])
	ts.Check(err)
	r, err := layers[i].Uncompressed()
	ts.Check(err)
	defer r.Close()
	var got []string
	for t := tar.NewReader(r); len(got) < len(args)-2; {
		h, err := t.Next()
		ts.Check(err)
		got = append(got, h.Name)
	}
	if !slices.Equal(got, args[2:]) {
		ts.Fatalf("layer %d of %s begins with %q", i, args[0], got)
	}
}
