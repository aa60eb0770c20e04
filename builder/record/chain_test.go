package record

import (
	"slices"
	"testing"
)

type fields map[string]string

func (f fields) GetString(field string) string { return f[field] }

// A machine has made three layers on a base image whose layer has a table of contents. Another one has fetched them with tables, and has made a fourth one.
func TestChains(t *testing.T) {
	const base, a, b, c, d = "sha256:base", "sha256:a", "sha256:b", "sha256:c", "sha256:d"
	var made, fetched []Layer
	add := func(list []Layer, diffID, toc string) []Layer {
		below := ""
		if n := len(list); n > 0 {
			below = list[n-1].GetString(Chain)
		}
		return append(list, fields{Chain: ChainOf(below, diffID, toc), DiffID: diffID})
	}
	made, fetched = add(made, base, "table"), add(fetched, base, "table")
	named := map[string]string{}
	for diffID, toc := range map[string]string{a: "table of a"} {
		made, fetched = add(made, diffID, ""), add(fetched, diffID, toc)
		named[fetched[1].GetString(Chain)] = made[1].GetString(Chain)
	}
	for _, diffID := range []string{b, c, d} {
		made, fetched = add(made, diffID, ""), add(fetched, diffID, "")
	}
	look := func(chain string) string { return named[chain] }
	want := Chains(made, look)
	for i, l := range made {
		if want[i] != l.GetString(Chain) {
			t.Errorf("layer %d of who made it is called %s, not %s", i, want[i], l.GetString(Chain))
		}
	}
	if got := Chains(fetched, look); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := Chains(fetched, func(string) string { return "" }); got[0] != want[0] || slices.Contains(want, got[1]) {
		t.Errorf("without names: %q", got)
	}
	if got := Chains([]Layer{fields{}, fields{}}, look); !slices.Equal(got, []string{"", ""}) {
		t.Errorf("without digests: %q", got)
	}
}

// TestTwin: a layer that is read by its twin goes by the name in its record, and those on it by what follows from that.
func TestTwin(t *testing.T) {
	const base, a, b, toc = "sha256:base", "sha256:a", "sha256:b", "sha256:table"
	layers := func(table, name string) (list []Layer) {
		below := ChainOf("", base, table)
		list = append(list, fields{Chain: below, DiffID: base, Name: name})
		for _, diffID := range []string{a, b} {
			below = ChainOf(below, diffID, "")
			list = append(list, fields{Chain: below, DiffID: diffID})
		}
		return list
	}
	nothing := func(string) string { return "" }
	want := Chains(layers("", ""), nothing)
	if got := Chains(layers(toc, base), nothing); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := Chains(layers(toc, ""), nothing); got[0] == want[0] || got[2] == want[2] {
		t.Errorf("without a name it goes by those of the layers that were compared: %q", got)
	}
}
