package remote

import "slices"

// Index is what was found in the scopes of a store. Its methods may be called concurrently. What they return is not to be changed.
type Index struct {
	entries []identified
	byKey   map[[2]string][]int
	seen    map[string]bool
}

// add appends the entries of a scope, which are in order. One that an earlier scope has is not found twice.
func (x *Index) add(scope string, entries []identified) {
	if x.byKey == nil {
		x.byKey, x.seen = map[[2]string][]int{}, map[string]bool{}
	}
	for _, e := range entries {
		if x.seen[e.id] {
			continue
		}
		x.seen[e.id] = true
		e.Scope = scope
		k := [2]string{e.Kind, e.Key}
		x.byKey[k] = append(x.byKey[k], len(x.entries))
		x.entries = append(x.entries, e)
	}
}

// Find returns the entries of a kind with a key: in the order of the scopes, and in each of them the newest first.
func (x *Index) Find(kind, key string) []Entry {
	var out []Entry
	for _, i := range x.byKey[[2]string{kind, key}] {
		out = append(out, x.entries[i].Entry)
	}
	return out
}

// All returns the entries of a kind in the order of Find; those of every kind if it is empty.
func (x *Index) All(kind string) []Entry {
	var out []Entry
	for _, e := range x.entries {
		if kind == "" || e.Kind == kind {
			out = append(out, e.Entry)
		}
	}
	return slices.Clip(out)
}

// Has tells whether an entry is in the index.
func (x *Index) Has(e Entry) bool { return x.seen[e.ID()] }
