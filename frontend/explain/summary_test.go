package explain

import (
	"testing"

	"github.com/optbuild/optbuild/frontend/opt"
)

func TestSummary(t *testing.T) {
	remark := func(k opt.Kind, pass string) opt.Remark { return opt.Remark{Kind: k, Pass: pass, Name: "x"} }
	mount, merged, missed := remark(opt.Passed, "cache-mounts"), remark(opt.Passed, "merge-run"), remark(opt.Missed, "link")
	kept := opt.Remark{Kind: opt.Missed, Pass: "link", Name: "kept"}
	for want, remarks := range map[string][]opt.Remark{
		"": {remark(opt.Analysis, "link"), remark(opt.Passed, "dead-stages"), kept},
		"optimized: 2 cache mounts, 1 RUN merged; 3 more possible (optbuild explain)": {mount, missed, merged, missed, mount, missed},
		"optimized: 1 cache mount (optbuild explain)":                                 {mount, kept},
		"optimized: nothing; 1 possible (optbuild explain)":                           {missed},
		"optimized: 2 by new-pass (optbuild explain)":                                 {remark(opt.Passed, "new-pass"), remark(opt.Passed, "new-pass")},
	} {
		if got := Summary(&Account{Remarks: remarks}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
