package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/optbuild/optbuild/builder/store"
)

func TestPrintImages(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	id := digest.Digest("sha256:" + strings.Repeat("0123456789abcdef", 4))
	list := []store.Image{
		{Name: "docker.io/library/app:1", Repository: "app", Tag: "1", ID: id, Created: now.Add(-3 * time.Hour), Bytes: 12_345_678, Platforms: []string{"linux/amd64"}},
		{Name: "<none>", Repository: "<none>", Tag: "<none>", ID: id, Bytes: 10, Dangling: true},
	}
	full := id.String()
	for _, c := range []struct {
		name string
		list []store.Image
		f    imagesFormat
		want string
	}{
		{"table", list, imagesFormat{}, `
REPOSITORY   TAG       IMAGE ID       CREATED       SIZE
app          1         0123456789ab   3 hours ago   12.3MB
<none>       <none>    0123456789ab   N/A           10B
`},
		{"no images", nil, imagesFormat{}, `
REPOSITORY   TAG       IMAGE ID   CREATED   SIZE
`},
		{"digests, in full", list[:1], imagesFormat{digests: true, full: true}, `
REPOSITORY   TAG       DIGEST                                                                    IMAGE ID                                                                  CREATED       SIZE
app          1         ` + full + `   ` + full + `   3 hours ago   12.3MB
`},
		{"quiet", list, imagesFormat{quiet: true}, "\n0123456789ab\n0123456789ab\n"},
		{"quiet, in full", list[:1], imagesFormat{quiet: true, full: true}, "\n" + full + "\n"},
		{"template", list, imagesFormat{format: `{{.Repository}}:{{.Tag}}\t{{upper .Size}}`}, "\napp:1\t12.3MB\n<none>:<none>\t10B\n"},
		{"table of a template", list[:1], imagesFormat{format: `table {{.Tag}}\t{{.Repository}}`}, `
TAG       REPOSITORY
1         app
`},
		{"json", list[1:], imagesFormat{format: "json"}, `
{"CreatedAt":"` + time.Time{}.Local().Format("2006-01-02 15:04:05 -0700 MST") + `","CreatedSince":"N/A","Digest":"` + full + `","ID":"0123456789ab","Repository":"<none>","Size":"10B","Tag":"<none>"}
`},
		{"--json", list[:1], imagesFormat{json: true}, `
[
    {
        "name": "docker.io/library/app:1",
        "repository": "app",
        "tag": "1",
        "id": "` + full + `",
        "created": "2026-11-20T09:00:00Z",
        "bytes": 12345678,
        "platforms": [
            "linux/amd64"
        ],
        "dangling": false
    }
]
`},
		{"--json without images", nil, imagesFormat{json: true}, "\n[]\n"},
		{"unknown field", list, imagesFormat{format: "{{.Nope}}"}, "usage: can't evaluate field Nope"},
		{"broken template", list, imagesFormat{format: "{{"}, "usage: unclosed action"},
	} {
		var b bytes.Buffer
		c.f.now = now
		err := printImages(&b, c.list, c.f)
		if text, ok := strings.CutPrefix(c.want, "usage: "); ok {
			var u *usageErr
			if !errors.As(err, &u) || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: error %v, want a usage error with %q", c.name, err, text)
			}
			continue
		}
		if got := "\n" + b.String(); err != nil || got != c.want {
			t.Errorf("%s: %v%s\nwant:%s", c.name, err, got, c.want)
		}
	}
}

func TestInspectTemplates(t *testing.T) {
	found := []store.Inspection{{ID: "sha256:1", RepoTags: []string{"app:1"}, Size: 12_345_678}}
	found[0].Config.Env = []string{"A=b"}
	for format, want := range map[string]string{
		"{{.Id}} {{.Size}} {{.RepoTags}} {{json .Config.Env}}": "sha256:1 12345678 [app:1] [\"A=b\"]\n",
		"{{.Nope}}": "no entry for key",
		"{{":        "unclosed action",
	} {
		var b bytes.Buffer
		err := printInspections(&b, format, found)
		if got := b.String() + fmt.Sprint(err); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", format, got, want)
		}
	}
}

func TestListOptions(t *testing.T) {
	for filter, want := range map[string]string{
		"reference=app:*": "[app:*] any",
		"dangling=true":   "[] true",
		"dangling=0":      "[] false",
		"dangling=maybe":  "is not dangling=true or dangling=false",
		"color=blue":      "is not reference=PATTERN",
	} {
		o, err := listOptions([]string{filter})
		got := fmt.Sprint(o.References, " any")
		if o.Dangling != nil {
			got = fmt.Sprint(o.References, " ", *o.Dangling)
		}
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", filter, got, want)
		}
	}
}

func TestPullOptions(t *testing.T) {
	t.Setenv("DOCKER_DEFAULT_PLATFORM", "linux/s390x")
	for _, c := range []struct {
		in   []string
		want store.PullOptions
		err  string
	}{
		{nil, store.PullOptions{Platforms: []ocispecs.Platform{{OS: "linux", Architecture: "s390x"}}}, ""},
		{[]string{"all"}, store.PullOptions{AllPlatforms: true}, ""},
		{[]string{"linux/amd64, linux/arm64"}, store.PullOptions{Platforms: []ocispecs.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}}, ""},
		{[]string{"all", "linux/amd64"}, store.PullOptions{}, "all stands alone"},
		{[]string{"li nux"}, store.PullOptions{}, "--platform li nux"},
	} {
		got, err := pullOptions(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: error %v, want %q", c.in, err, c.err)
			}
			continue
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%q: %v %v, want %v", c.in, got, err, c.want)
		}
	}
}
