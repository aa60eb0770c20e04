package frontend

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

const sharedText = `FROM a AS web
RUN make
FROM a AS plain
RUN other
FROM a AS between
COPY --from=web /web /between
FROM a AS base
ARG DIR=/base
COPY --from=between --chown=1:2 /between/a /between/b $DIR/
COPY --from=plain /plain /plain
FROM base
COPY --from=0 --chmod=700 /web/bin /bin
`

// TestShared: what an image has of a shared stage is told in the words of the image's history, however it came there.
func TestShared(t *testing.T) {
	g := &gateway{
		files:  map[string]string{"Dockerfile": sharedText},
		opts:   map[string]string{"platform": "linux/amd64,linux/arm64", AttrShare: "web"},
		config: `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]}}`,
	}
	res, err := Build(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "shared", string(res.Metadata[SharedKey]),
		`[{"stage":"web","by":"asked","copies":["COPY --chmod=700 /web/bin /bin","COPY --chown=1:2 /between/a /between/b /base/"]}]`)
	var stages []SharedStage
	if err := json.Unmarshal(res.Metadata[SharedKey], &stages); err != nil {
		t.Fatal(err)
	}
	var img dockerspec.DockerOCIImage
	if err := json.Unmarshal(res.Metadata[exptypes.ExporterImageConfigKey+"/linux/arm64"], &img); err != nil {
		t.Fatal(err)
	}
	var history []string
	for _, h := range img.History {
		history = append(history, strings.TrimSuffix(h.CreatedBy, " # buildkit"))
	}
	for _, c := range stages[0].Copies {
		if !slices.Contains(history, c) {
			t.Errorf("the history has no %q:\n%s", c, strings.Join(history, "\n"))
		}
	}

	g.opts = map[string]string{"platform": "linux/amd64", AttrShare: "web"}
	if res, err = Build(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if b := res.Metadata[SharedKey]; b != nil {
		t.Errorf("for one platform something is shared: %s", b)
	}
}

// TestSharedUnknown: a stage that is not there is an error, and so is one that nobody would share.
func TestSharedUnknown(t *testing.T) {
	const text = "FROM a AS web\nRUN make\nFROM a AS unused\nRUN true\nFROM a\nCOPY --from=web /web /web\n" // which is rewritten
	for name, c := range map[string]struct {
		opts map[string]string
		want string
	}{
		"misspelt":     {map[string]string{AttrShare: "wbe"}, `Dockerfile has no stage "wbe" to share: want one of web, unused`},
		"by argument":  {map[string]string{"build-arg:OPTBUILD_SHARE_STAGE": "web, wbe"}, `no stage "wbe"`},
		"switched off": {map[string]string{AttrShare: "web", AttrDisable: "share-stages"}, "a stage can't be shared where the pass share-stages is switched off"},
		"off":          {map[string]string{AttrShare: "web", AttrOptimize: "off"}, "a stage can't be shared"},
	} {
		g := &gateway{files: map[string]string{"Dockerfile": text}, opts: c.opts, config: `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]}}`}
		_, err := Build(t.Context(), g)
		if err == nil {
			err = errors.New("no error")
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
