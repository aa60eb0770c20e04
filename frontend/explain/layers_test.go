package explain

import (
	"fmt"
	"strings"
	"testing"

	"github.com/optbuild/optbuild/frontend/plan"
)

func TestLayers(t *testing.T) {
	const one, out = "one-layer: these %d RUNs", "left-out: what %s may leave behind"
	for _, test := range []struct {
		dockerfile string
		want       []string // "first-last name: beginning of the message"
	}{
		{"FROM a\nRUN x\n", nil},
		{"FROM a\nRUN x\nENV y=z\nWORKDIR /w\nRUN y\nCOPY a b\nRUN z\n", []string{"2-5 " + fmt.Sprintf(one, 2)}},
		{"# optbuild: off=squash\nFROM a\nRUN x\nRUN y\n", nil},
		{"FROM a AS base\nRUN x\nFROM c\nRUN u\nRUN v\nFROM base\nRUN y\n", []string{"2-7 " + fmt.Sprintf(one, 2)}},
		{"FROM a\nRUN apt-get update && apt-get install -y pip && python3 -m pip install x\n", []string{"2-2 " + fmt.Sprintf(out, "apt-get and pip")}},
		{"# optbuild: off=strip-npm\nFROM a\nRUN npm ci\nCOPY a b\nRUN sudo yarn\n", []string{"5-5 " + fmt.Sprintf(out, "yarn")}},
		{"# optbuild: off=strip\nFROM a\nRUN npm ci\n", nil},
		{"# optbuild: keep\nFROM a\nRUN npm ci\nRUN x\n", nil},
		{"FROM a\nRUN [\"npm\", \"ci\"]\n", []string{"2-2 " + fmt.Sprintf(out, "npm")}},
		{"FROM a\nRUN echo 'npm ci' && $npm ci\n", nil},
	} {
		p, err := plan.Parse("Dockerfile", []byte(test.dockerfile))
		if err != nil {
			t.Fatal(err)
		}
		remarks := Layers(p, &plan.Facts{})
		for i, r := range remarks {
			got := fmt.Sprintf("%d-%d %s: %s", r.Lines.First, r.Lines.Last, r.Name, r.Message)
			if i >= len(test.want) || !strings.HasPrefix(got, test.want[i]) {
				t.Errorf("%s: got %q, want %q", test.dockerfile, got, test.want)
			}
		}
		if len(remarks) < len(test.want) {
			t.Errorf("%s: %d remarks, want %q", test.dockerfile, len(remarks), test.want)
		}
	}
}
