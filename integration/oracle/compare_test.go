package oracle

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// An image in these tests is written as the lines of its layers, separated by lines of "--":
//
//	PATH TYPE MODE UID:GID CONTENT|TARGET|MAJOR:MINOR [XATTR=VALUE...]
//
// TYPE is f, d, l (symbolic link), h (hard link), c, b or p.
func image(t *testing.T, layers, config string) *Image {
	t.Helper()
	img := empty.Image
	var l []v1.Layer
	for text := range strings.SplitSeq(layers, "--\n") {
		l = append(l, static.NewLayer(archive(t, text), types.OCIUncompressedLayer))
	}
	img, err := mutate.AppendLayers(img, l...)
	if err != nil {
		t.Fatal(err)
	}
	var r Reader
	read, err := r.Read(img)
	if err != nil {
		t.Fatal(err)
	}
	if config != "" {
		read.Config = []byte(config)
	}
	return read
}

func archive(t *testing.T, lines string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		h := &tar.Header{Name: f[0], Format: tar.FormatPAX, PAXRecords: map[string]string{}}
		fmt.Sscanf(f[2], "%o", &h.Mode)
		fmt.Sscanf(f[3], "%d:%d", &h.Uid, &h.Gid)
		content, rest := "", ""
		if len(f) > 4 {
			rest = f[4]
		}
		for _, x := range f[min(5, len(f)):] {
			k, v, _ := strings.Cut(x, "=")
			h.PAXRecords[xattr+k] = v
		}
		h.Typeflag = map[string]byte{"f": tar.TypeReg, "d": tar.TypeDir, "l": tar.TypeSymlink, "h": tar.TypeLink,
			"c": tar.TypeChar, "b": tar.TypeBlock, "p": tar.TypeFifo}[f[1]]
		switch h.Typeflag {
		case tar.TypeReg:
			content = rest
			h.Size = int64(len(content))
		case tar.TypeSymlink, tar.TypeLink:
			h.Linkname = rest
		case tar.TypeChar, tar.TypeBlock:
			fmt.Sscanf(rest, "%d:%d", &h.Devmajor, &h.Devminor)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDifferences changes one thing at a time.
func TestDifferences(t *testing.T) {
	for _, c := range []struct{ name, want, got, diff string }{
		{"same", "etc/a f 644 0:0 x", "etc/a f 644 0:0 x", ""},
		{"missing", "a f 644 0:0 x", "b f 644 0:0 x",
			"/a: missing, want a file 0644 0:0 \"x\"\n/b: a file 0644 0:0 \"x\", want nothing"},
		{"an empty directory", "a d 755 0:0", "", "/a: missing, want a directory 0755 0:0"},
		{"type", "a f 644 0:0 x", "a l 777 0:0 x", "/a: a symbolic link 0777 0:0 -> x, want a file 0644 0:0 \"x\""},
		{"directory or file", "a d 644 0:0", "a f 644 0:0", "/a: a file 0644 0:0 \"\", want a directory 0644 0:0"},
		{"mode", "a f 644 0:0 x", "a f 755 0:0 x", "/a: mode 0755, want 0644"},
		{"setuid", "a f 4755 0:0 x", "a f 755 0:0 x", "/a: mode 0755, want 4755"},
		{"sticky directory", "a d 1777 0:0", "a d 777 0:0", "/a: mode 0777, want 1777"},
		{"the root's mode", "./ d 700 0:0", "./ d 755 0:0", "/: mode 0755, want 0700"},
		{"a link's mode means nothing", "a l 777 0:0 x", "a l 755 0:0 x", ""},
		{"uid", "a f 644 1:2 x", "a f 644 3:2 x", "/a: uid 3, want 1"},
		{"gid", "a d 755 1:2 x", "a d 755 1:3 x", "/a: gid 3, want 2"},
		{"a link's owner", "a l 777 1:1 x", "a l 777 0:1 x", "/a: uid 0, want 1"},
		{"content", "a f 644 0:0 x", "a f 644 0:0 y", "/a: content \"y\", want \"x\""},
		{"long content", "a f 644 0:0 " + strings.Repeat("x", 500), "a f 644 0:0 " + strings.Repeat("y", 500),
			"/a: content 500 bytes sha256:a730708b6f663849, want 500 bytes sha256:c38c2bf3055c516a"},
		{"xattr", "a f 644 0:0 x user.k=1", "a f 644 0:0 x user.k=2", "/a: xattr user.k \"2\", want \"1\""},
		{"xattr gone", "a f 644 0:0 x user.k=1", "a f 644 0:0 x", "/a: xattr user.k nothing, want \"1\""},
		{"xattr more", "a d 755 0:0 x", "a d 755 0:0 x user.k=", "/a: xattr user.k \"\", want nothing"},
		{"target", "a l 777 0:0 x", "a l 777 0:0 ./x", "/a: target ./x, want x"},
		{"device", "a c 600 0:0 1:3", "a c 600 0:0 1:5", "/a: device 1:5, want 1:3"},
		{"device type", "a c 600 0:0 1:3", "a b 600 0:0 1:3", "/a: a block device 0600 0:0 1:3, want a character device 0600 0:0 1:3"},
		{"fifo", "a p 600 0:0", "a p 644 0:0", "/a: mode 0644, want 0600"},
		{"hard link", "a f 644 0:0 x\nb h 644 0:0 a", "a f 644 0:0 x\nb f 644 0:0 x",
			"/a: hard links none, want /a = /b\n/b: hard links none, want /a = /b"},
		{"the same in other layers", "a f 644 0:0 x\nb f 644 0:0 y", "b f 600 0:0 y\n--\na f 644 0:0 x\nb f 644 0:0 y", ""},
		{"a deleted file", "a/b f 644 0:0 x\n--\na/.wh.b f 0 0:0", "a d 755 0:0", ""},
		{"a deleted tree", "a/b/c f 644 0:0 x\n--\na/.wh.b f 0 0:0", "a d 755 0:0", ""},
		{"a deletion spares its own layer", "a/b f 644 0:0 x\n--\na/b f 644 0:0 y\na/.wh.b f 0 0:0", "a/b f 644 0:0 y", ""},
		{"an opaque directory", "a/b f 644 0:0 x\na/c/d f 644 0:0 x\n--\na/e f 644 0:0 y\na/.wh..wh..opq f 0 0:0", "a/e f 644 0:0 y", ""},
		{"a file in place of a directory", "a/b f 644 0:0 x\n--\na f 644 0:0 y", "a f 644 0:0 y", ""},
		{"a directory in place of a file", "a f 644 0:0 x\n--\na d 755 0:0\na/b f 644 0:0 y", "a/b f 644 0:0 y", ""},
		{"a directory keeps what is in it", "a/b f 644 0:0 x\n--\na d 700 0:0", "a d 700 0:0\na/b f 644 0:0 x", ""},
		{"a hard link that was broken", "a f 644 0:0 x\nb h 644 0:0 a\n--\nb f 644 0:0 y", "a f 644 0:0 x\nb f 644 0:0 y", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(Compare(image(t, c.want, ""), image(t, c.got, ""), Rules{}), "\n")
			if got != c.diff {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.diff)
			}
		})
	}
}

func TestTimestampsAreIgnored(t *testing.T) {
	a, b := image(t, "a f 644 0:0 x", ""), image(t, "a f 644 0:0 x", "")
	maps.DeleteFunc(a.Tree, func(p string, _ Entry) bool { return p == "/" })
	if diff := Compare(a, b, Rules{}); len(diff) != 1 {
		t.Errorf("a missing root is not seen: %q", diff)
	}
	b.Config = []byte(`{"created":"2026-01-01T00:00:00Z"}`)
	a.Config = []byte(`{"created":"1970-01-01T00:00:00Z"}`)
	a.Tree = b.Tree
	if diff := Compare(a, b, Rules{}); diff != nil {
		t.Errorf("got %q", diff)
	}
	if diff := Compare(a, b, Rules{Level: LevelImage}); len(diff) != 1 {
		t.Errorf("as images: %q", diff)
	}
}

func TestConfig(t *testing.T) {
	const want = `{"architecture":"amd64","created":"a","history":[1],"rootfs":{"type":"layers","diff_ids":["x"]},
		"config":{"Env":["A=1","B=2"],"Labels":{"l":"1"},"Cmd":["sh"]}}`
	for _, c := range []struct{ got, diff string }{
		{`{"architecture":"amd64","created":"b","history":[],"rootfs":{"type":"layers","diff_ids":["y"]},
			"config":{"Cmd":["sh"],"Env":["A=1","B=2"],"Labels":{"l":"1"}}}`, ""},
		{`{"architecture":"arm64","rootfs":{"type":"layers"},"config":{"Env":["A=1","B=2"],"Labels":{"l":"1"},"Cmd":["sh"]}}`,
			`config.architecture: "arm64", want "amd64"`},
		{`{"architecture":"amd64","rootfs":{"type":"layers"},"config":{"Env":["B=2","A=1"],"Labels":{"l":"2"},"User":"1"}}`,
			`config.config.Cmd: nothing, want ["sh"]
config.config.Env: ["B=2","A=1"], want ["A=1","B=2"]
config.config.Labels.l: "2", want "1"
config.config.User: "1", want nothing`},
		{`{"architecture":"amd64","rootfs":{},"config":{"Env":["A=1","B=2"],"Labels":{},"Cmd":["sh"]}}`,
			`config.config.Labels.l: nothing, want "1"
config.rootfs.type: nothing, want "layers"`},
	} {
		a, b := image(t, "", want), image(t, "", c.got)
		if got := strings.Join(Compare(a, b, Rules{}), "\n"); got != c.diff {
			t.Errorf("got:\n%s\nwant:\n%s", got, c.diff)
		}
	}
}

func TestLevelImage(t *testing.T) {
	one := image(t, "a f 644 0:0 x\n--\nb f 644 0:0 x", "")
	for _, c := range []struct{ layers, diff string }{
		{"a f 644 0:0 x\n--\nb f 644 0:0 x", ""},
		{"a f 644 0:0 x\nb f 644 0:0 x", "layers: "},
		{"b f 644 0:0 x\n--\na f 644 0:0 x", "layers: "},
		{"a f 644 0:0 x\n--\nb f 644 0:0 y", `/b: content "y", want "x"`},
	} {
		other := image(t, c.layers, "")
		other.Config = one.Config
		got := strings.Join(Compare(one, other, Rules{Level: LevelImage}), "\n")
		if !strings.Contains(got, c.diff) || (got == "") != (c.diff == "") {
			t.Errorf("%s: got:\n%s\nwant:\n%s", c.layers, got, c.diff)
		}
	}
	other := image(t, "a f 644 0:0 x\n--\nb f 644 0:0 x", strings.Replace(string(one.Config), "{", "{ ", 1))
	if got := Compare(one, other, Rules{Level: LevelImage}); len(got) != 1 {
		t.Errorf("a configuration that is written differently: %q", got)
	}
}

func TestResidue(t *testing.T) {
	const stock = "root d 700 0:0\nroot/.cache/pip/x f 644 0:0 x\nroot/.npm/y f 644 0:0 y"
	for _, c := range []struct{ name, want, got, residue, diff string }{
		{"gone with its parent", stock, "root d 700 0:0\nroot/.npm/y f 644 0:0 y", "/root/.cache/pip", ""},
		{"only that", stock, "root d 700 0:0", "/root/.cache/pip", "/root/.npm: missing, want a directory 0755 0:0\n/root/.npm/y: missing, want a file 0644 0:0 \"y\""},
		{"two", stock, "root d 700 0:0", "/root/.cache/pip/ /root/.npm", ""},
		{"a parent that differs", stock, "root d 755 0:0", "/root/.cache /root/.npm", "/root: mode 0755, want 0700"},
		{"a name that begins like it", stock, "root d 700 0:0\nroot/.cache/pip/x f 644 0:0 x", "/root/.np", "/root/.npm: missing, want a directory 0755 0:0\n/root/.npm/y: missing, want a file 0644 0:0 \"y\""},
		{"a parent with more in it", stock + "\nroot/.cache/other f 644 0:0 z", "root d 700 0:0\nroot/.npm/y f 644 0:0 y", "/root/.cache/pip",
			"/root/.cache: missing, want a directory 0755 0:0\n/root/.cache/other: missing, want a file 0644 0:0 \"z\""},
		{"an empty sibling counts", stock + "\nroot/.cache/empty d 755 0:0", "root d 700 0:0\nroot/.npm/y f 644 0:0 y", "/root/.cache/pip",
			"/root/.cache: missing, want a directory 0755 0:0\n/root/.cache/empty: missing, want a directory 0755 0:0"},
		{"in both, and different", stock, strings.ReplaceAll(stock, "0:0 x", "0:0 other"), "/root/.cache/pip", ""},
		{"new", "root d 700 0:0", "root d 700 0:0\nroot/.npm/y f 644 0:0 y", "/root/.npm",
			"/root/.npm: a directory 0755 0:0, want nothing\n/root/.npm/y: a file 0644 0:0 \"y\", want nothing"},
		{"linked from elsewhere", stock + "\nhome/y h 644 0:0 root/.npm/y", "root d 700 0:0\nroot/.cache/pip/x f 644 0:0 x\nhome/y f 644 0:0 y", "/root/.npm", ""},
		{"everything", stock, stock, "/", "\"/\" is no path of residue"},
		{"relative", stock, stock, "root", "\"root\" is no path of residue"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(Compare(image(t, c.want, ""), image(t, c.got, ""), Rules{Residue: strings.Fields(c.residue)}), "\n")
			if got = keepTrees(got); got != c.diff {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.diff)
			}
		})
	}
}

// keepTrees drops differences of the configuration.
func keepTrees(diff string) string {
	var out []string
	for line := range strings.Lines(diff) {
		if line = strings.TrimSuffix(line, "\n"); !strings.HasPrefix(line, "config") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

func TestBadLayers(t *testing.T) {
	for _, c := range []struct{ layer, err string }{
		{"a h 644 0:0 b", "/a is a hard link to /b, which is not there"},
		{"a f 644 0:0 x\na/b f 644 0:0 x", "/a/b is below /a, which is not a directory"},
	} {
		l, err := readLayer(bytes.NewReader(archive(t, c.layer)))
		if err == nil {
			_, err = flatten([]*layer{l})
		}
		if err == nil || err.Error() != c.err {
			t.Errorf("%q: got %v, want %s", c.layer, err, c.err)
		}
	}
}

// TestAnyLinks compares a file under two names with two files.
func TestAnyLinks(t *testing.T) {
	linked, apart := image(t, "a f 644 0:0 x\nb h 644 0:0 a", ""), image(t, "a f 644 0:0 x\nb f 644 0:0 x", "")
	other := image(t, "a f 644 0:0 x\nb f 644 0:0 y", "")
	for _, images := range [][2]*Image{{linked, apart}, {apart, linked}} {
		if diff := Compare(images[0], images[1], Rules{AnyLinks: true}); diff != nil {
			t.Errorf("got %s", diff)
		}
	}
	if Compare(linked, other, Rules{AnyLinks: true}) == nil {
		t.Error("another content is no difference")
	}
}
