package analyze

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestWaste says for each way to waste bytes what is said of it.
func TestWaste(t *testing.T) {
	for name, test := range map[string]struct {
		layers []string
		want   string
	}{
		"nothing":             {[]string{"a 3", "b 4"}, ""},
		"overwritten":         {[]string{"a 3", "a 3x"}, "/a 3 #1 overwritten by #2"},
		"copied again":        {[]string{"a 3", "", "a 3"}, "/a 3 #1 copied again, unchanged, by #3"},
		"chmod":               {[]string{"a 3", "a 3 mode=600 time=5"}, "/a 3 #1 copied again by #2: mode, time changed"},
		"chown":               {[]string{"a 3", "a 3 owner=5"}, "/a 3 #1 copied again by #2: owner changed"},
		"setfattr":            {[]string{"a 3", "a 3 xattr=v"}, "/a 3 #1 copied again by #2: attributes changed"},
		"deleted":             {[]string{"d/a 3\nd/b 4", "-d/a"}, "/d/a 3 #1 deleted by #2"},
		"directory deleted":   {[]string{"d/a 3\nd/e/b 4", "-d"}, "/d/a 3 #1 deleted by #2\n/d/e/b 4 #1 deleted by #2"},
		"opaque directory":    {[]string{"d/a 3\nd/b 4", "d/\nd/b 4\n-d/"}, "/d/a 3 #1 deleted by #2\n/d/b 4 #1 deleted by #2"},
		"file to directory":   {[]string{"d 3", "d/"}, "/d 3 #1 deleted by #2"},
		"directory to file":   {[]string{"d/a 3", "d 4"}, "/d/a 3 #1 deleted by #2"},
		"link over a file":    {[]string{"a 3", "a -> b"}, "/a 3 #1 deleted by #2"},
		"twice in a layer":    {[]string{"a 3\na 4"}, "/a 3 #1 twice in the layer"},
		"one link left":       {[]string{"a 3\nb => a", "-a"}, ""},
		"no link left":        {[]string{"a 3\nb => a", "-a", "-b"}, "/b 3 #1 deleted by #3"},
		"linked to itself":    {[]string{"a 3\nb => a\nb => a"}, ""},
		"twice, by and by":    {[]string{"a 3", "a 4", "-a"}, "/a 3 #1 overwritten by #2\n/a 4 #2 deleted by #3"},
		"out of the root":     {[]string{"a 3", "../../a 4"}, "/a 3 #1 overwritten by #2"},
		"nothing to delete":   {[]string{"a 3", "-b\n-c/\n-d/e"}, ""},
		"whiteout after file": {[]string{"d/a 3", "d/b 4\n-d/a"}, "/d/a 3 #1 deleted by #2"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Analyze(t.Context(), newImage(t, test.layers...), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got := lines(r.Wasted); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

// TestText pins the whole of what people see.
func TestText(t *testing.T) {
	im := newImage(t, "base 1000\nsame 50", "", "base 1000 mode=600\nd/copy 50", "-d/copy\n\x1besc 7")
	im.Config.History[0].Comment = "buildkit.dockerfile.v0; left out: apt-lists (41MB, 2 files)"
	r, err := Analyze(t.Context(), im, Options{})
	if err != nil {
		t.Fatal(err)
	}
	// What gzip makes of it is nobody's business here.
	r.Bytes, r.Digest = 300, "sha256:0"
	for i := range r.History {
		if r.History[i].Layer != "" {
			r.History[i].Bytes = 100
		}
	}
	var b bytes.Buffer
	if err := Text(&b, r, 60); err != nil {
		t.Fatal(err)
	}
	want := `app  linux/amd64  sha256:0

#  STORED  UNPACKED  WASTED  FILES  INSTRUCTION
1    100B    1.05kB     1kB      2  RUN 1
                                      left out: apt-lists (…
2                                   RUN 2
3    100B    1.05kB     50B      2  RUN 3
4    100B        7B       -      1  RUN 4
     300B    2.11kB  1.05kB      5  in 3 layers

waste: 1.05kB of 2.11kB (49.8 %), in 2 files that a later layer replaces or deletes
stripped: 41MB left out by the export

wasted: in a layer, and not in the image's files
BYTES  #  PATH     WHY
  1kB  1  /base    copied again by #3: mode changed
  50B  3  /d/copy  deleted by #4

largest files
BYTES  #  PATH
  1kB  3  /base
  50B  1  /same
   7B  4  /` + "\ufffd" + `esc
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestEqual(t *testing.T) {
	r, err := Analyze(t.Context(), newImage(t, "a 9x\nb 9x\nc => b\nd 9y\ne 0\nf 0", "g 9x\nd 9z"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(r.Equal)
	if want := `[{"bytes":9,"wastedBytes":18,"paths":["/a","/b","/g"]}]`; string(got) != want || r.EqualBytes != 18 {
		t.Errorf("got %s (%d bytes)\nwant %s", got, r.EqualBytes, want)
	}
}

// TestDamaged: a blob that is not what its digest says is an error, whether or not its tar can be read.
func TestDamaged(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut off":       func(b []byte) []byte { return b[:len(b)-3] },
		"changed":       func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"something new": func(b []byte) []byte { return append(b, 0) },
		"gone":          func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			im := newImage(t, "a 3000")
			layer := im.Manifest.Layers[0]
			im.Blobs.(blobs)[layer.Digest] = damage(bytes.Clone(im.Blobs.(blobs)[layer.Digest]))
			if r, err := Analyze(t.Context(), im, Options{}); err == nil {
				t.Errorf("analyzed: %+v", r)
			}
		})
	}
}

// TestDamagedPlain: without compression nothing but the digest tells.
func TestDamagedPlain(t *testing.T) {
	im := newImage(t, "a 3000")
	b := im.Blobs.(blobs)
	l, err := im.openLayer(t.Context(), im.Manifest.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(l)
	if err != nil {
		t.Fatal(err)
	}
	im.Manifest.Layers[0] = b.add(ocispecs.MediaTypeImageLayer, plain)
	if _, err := Analyze(t.Context(), im, Options{}); err != nil {
		t.Fatal(err)
	}
	b[im.Manifest.Layers[0].Digest][1000] ^= 1 // in the file
	if r, err := Analyze(t.Context(), im, Options{}); err == nil {
		t.Errorf("analyzed: %+v", r)
	}
}

func TestOpen(t *testing.T) {
	im := newImage(t, "a 3")
	b := im.Blobs.(blobs)
	target := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: im.Digest, Size: int64(len(b[im.Digest]))}
	foreign, here, attestation := target, target, target
	foreign.Platform = &ocispecs.Platform{OS: "linux", Architecture: "s390x"}
	here.Platform = &ocispecs.Platform{OS: "linux", Architecture: "amd64"}
	attestation.Digest, attestation.Annotations = "sha256:00", map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	index := func(m ...ocispecs.Descriptor) ocispecs.Descriptor {
		return b.json(t, ocispecs.MediaTypeImageIndex, ocispecs.Index{Manifests: m})
	}
	amd64, arm64 := &ocispecs.Platform{OS: "linux", Architecture: "amd64"}, &ocispecs.Platform{OS: "linux", Architecture: "arm64"}
	for name, test := range map[string]struct {
		target ocispecs.Descriptor
		p      *ocispecs.Platform
		ok     bool
	}{
		"manifest":                  {target, nil, true},
		"manifest for a platform":   {target, amd64, true},
		"manifest for another":      {target, arm64, false},
		"index":                     {index(here, attestation), nil, true},
		"index in an index":         {index(index(here)), amd64, true},
		"index without it":          {index(here, foreign), arm64, false},
		"the only one is a foreign": {index(foreign), nil, true},
		"attestations only":         {index(attestation), nil, false},
		"no manifest":               {ocispecs.Descriptor{MediaType: "text/plain", Digest: im.Digest}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Open(t.Context(), "app", b, test.target, test.p); (err == nil) != test.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	r := &Report{Image: "app", Bytes: 1_500_000, UnpackedBytes: 4_000_000, WastedBytes: 400_000, WastedPercent: 10}
	for _, test := range []struct{ size, waste, want string }{
		{"", "", ""},
		{"1.5MB", "10%", ""},
		{"1MB", "", "app is over the limit: its layers have 1.5MB, 500kB more than --max-size 1MB"},
		{"", "7.5%", "app is over the limit: 10.0 % of its bytes (400kB) are wasted, 2.5 points more than --max-waste 7.5%"},
		{"", "300kB", "app is over the limit: 400kB are wasted, 100kB more than --max-waste 300kB"},
		{"1MB", "0%", "app is over the limit: its layers have 1.5MB, 500kB more than --max-size 1MB; 10.0 % of its bytes (400kB) are wasted, 10.0 points more than --max-waste 0%"},
		{"x", "", "--max-size x: is not a size such as 500MB"},
		{"-1", "", "--max-size -1: is not a size such as 500MB"},
		{"", "101%", "--max-waste 101%: is not a share such as 5%"},
		{"", "NaN%", "--max-waste NaN%: is not a share such as 5%"},
		{"", "much", "--max-waste much: is neither a share such as 5% nor a size such as 10MB"},
	} {
		l, err := ParseLimits(test.size, test.waste)
		if err == nil {
			err = l.Check(r)
			if err != nil && !errors.Is(err, ErrLimit) {
				t.Errorf("%v is no ErrLimit", err)
			}
		}
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%q %q: got\n%s\nwant\n%s", test.size, test.waste, got, test.want)
		}
	}
}

func TestInstruction(t *testing.T) {
	for in, want := range map[string]string{
		"RUN /bin/sh -c apt-get  update # buildkit":                "RUN apt-get update",
		"/bin/sh -c apt-get update":                                "RUN apt-get update",
		"/bin/sh -c #(nop)  CMD [\"bash\"]":                        "CMD [\"bash\"]",
		"RUN |1 A=b /bin/sh -c x # buildkit":                       "RUN |1 A=b /bin/sh -c x",
		"COPY . . # buildkit":                                      "COPY . .",
		"# debian.sh --arch 'amd64' out/ 'bookworm' '@1700000000'": "# debian.sh --arch 'amd64' out/ 'bookworm' '@1700000000'",
		"": "",
		"RUN /bin/bash -o pipefail -c curl x | sh # buildkit":               "RUN /bin/bash -o pipefail -c curl x | sh",
		"/bin/sh -c #(nop) ADD file:0123456789abcdef0123456789abcdef in / ": "ADD file:0123456789abcdef0123456789abcdef in /",
	} {
		if got := instruction(in); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", in, got, want)
		}
	}
}

func TestStripped(t *testing.T) {
	for comment, want := range map[string]string{
		"buildkit.dockerfile.v0; optbuild: one layer of 3 steps; left out: apt-lists (41.2MB, 12 files); left out: tmp (1kB, 1 files)": "41201000 apt-lists tmp",
		"stripped: npm (1,234 B)":   "1234 npm",
		"left out: pip (12kB":       "12000 pip",
		"left out: nothing to say":  "0",
		"left out: x (9999999999Q)": "0",
		"buildkit.dockerfile.v0":    "0",
		"":                          "0",
	} {
		n, rules := stripped(comment)
		got := strings.TrimSpace(strings.Join(append([]string{jsonOf(n)}, rules...), " "))
		if got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", comment, got, want)
		}
	}
	if got, want := plainComment("buildkit.dockerfile.v0; optbuild: one layer of 3 steps"), "optbuild: one layer of 3 steps"; got != want {
		t.Errorf("got %q", got)
	}
}

func jsonOf(v any) string { b, _ := json.Marshal(v); return string(b) }

// TestHTML: the page loads nothing, and what an image says is text in it.
func TestHTML(t *testing.T) {
	im := newImage(t, "<script>alert(1)</script> 9", "-<script>alert(1)<")
	im.Config.History[0].CreatedBy = "RUN <img src=x>"
	r, err := Analyze(t.Context(), im, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<script", "<img", "http://", "https://", "ZgotmplZ"} {
		if strings.Contains(b.String(), bad) {
			t.Errorf("the page has %s:\n%s", bad, b.String())
		}
	}
}
