package opt

import (
	"fmt"
	"testing"

	"github.com/optbuild/optbuild/frontend/plan"
)

// TestAlso: a remark of a change names every step that the change is about, whether it was made or refused.
func TestAlso(t *testing.T) {
	p, err := plan.Parse("Dockerfile", []byte("FROM a\nRUN one\nRUN two\nRUN three\n"))
	if err != nil {
		t.Fatal(err)
	}
	pass := Pass{Name: "merge", Keeps: Observed, Run: func(w *Work) {
		w.Do(Change{Steps: w.Plan.Stages[0].Steps, Name: "merged", Apply: func() {}})
		w.Missed(w.Plan.Stages[0].Steps[0], "other", "about one step")
	}}
	for _, level := range []Level{Safe, All} {
		res := run(p, &plan.Facts{}, Options{Level: level}, []Pass{pass})
		got := ""
		for _, r := range res.Remarks {
			got += fmt.Sprint(r.Step, r.Also, " ")
		}
		if want := "2 [3 4] 2 [] "; got != want {
			t.Errorf("%s: got %q, want %q", level, got, want)
		}
	}
}
