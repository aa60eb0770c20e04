package integration

import (
	"fmt"
	"testing"

	"github.com/optbuild/optbuild/integration/fuzzbuild"
)

// runners has two machines build over one shared cache, RUNNERS times (30) in all: half of them the projects that PROJECTS names (two of them, if it names none and RUNNERS does not say more),
// half generated ones.
func (r *fuzzRig) runners(t *testing.T) {
	s := fuzzbuild.Runners{Campaign: r.campaign(t), Registry: r.registry, Builds: 10}
	most := max(1, number(t, "RUNNERS", "20")/s.Builds)
	all := fuzzProjects(t)
	for i := range most {
		if i%2 == 0 && i/2 < len(all) {
			s.Projects = append(s.Projects, all[(int(s.Seed)*7+i/2*5)%len(all)])
		} else {
			s.Projects = append(s.Projects, fuzzbuild.Generate(s.Seed+uint64(i)))
		}
	}
	report, err := r.RunRunners(t.Context(), s)
	r.verdict(t, "runners", report, err)
	fmt.Println("fuzz-build: runners:", report.Total().Far)
}
